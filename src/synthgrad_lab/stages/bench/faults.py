"""The cost of faults: stages are killed, stopped and slowed down at random while the others train on."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from synthgrad.stages import Policy, Stage, Status, launch
from synthgrad_lab.feedforward.recipes import mnist_fcn
from synthgrad_lab.feedforward.settings import Settings
from synthgrad_lab.running.jsonl import Row
from synthgrad_lab.stages.split import build_stage, errors

KINDS = ("kill", "stop", "slow")
CUTS = (1, 2, 3)
POLICY = Policy(queue=8, silence_timeout=0.3, hang_timeout=1.5, checkpoint_every=50, replay=64, idle_exit_after=5.0)
PACE = 0.04
"""Shortest time of a stage's step, in seconds: four stages must not compete for two cores, as if each had its own
machine."""
SLOW_FOR = 3.0
"""Seconds in which a slow stage is stopped two thirds of the time."""
REST = 1.0
"""Seconds between one fault's end and the next fault, in which the neighbours' healthy rate is measured."""


def bench_faults(unlock: str, faults: int, progress: Callable[[int], None], seed: int = 0) -> Row:
    """Compare a run of four stages with faults to the same run without faults.

    A third of the faults is of each kind: killed, stopped (SIGSTOP), three times slower. ``progress`` gets the number
    of faults done; the seed is that of the weights, and of the choice of stages and kinds.

    Returns:
        ``faults, neighbour_rate`` (mean rate during faults, divided by the healthy rate), ``recovery_seconds`` (median
        of killed stages), ``error_gap`` (test error above the undisturbed run's, in points), ``steps_lost`` (the most
        by one fault), ``checkpoint_every``, and more.
    """
    every = 2.6 + REST  # seconds of a fault and the rest after it, roughly
    steps = round((faults * every + 15) / PACE)
    s = replace(mnist_fcn("cdni"), steps=steps, unlock=unlock, seed=seed)
    policy = replace(POLICY, max_restarts=faults)
    build = partial(paced_stage, s, CUTS, PACE)
    before = _left_behind()
    undisturbed = launch(build, 4, steps, policy=policy)
    injector = _FaultInjector(faults, seed, progress)
    disturbed = launch(build, 4, steps, policy=policy, watch=injector)
    calm, rough = (errors(s, CUTS, outcome.states)["test_error"] for outcome in (undisturbed, disturbed))
    return {
        "unlock": unlock,
        **injector.summary(),
        "error": rough,
        "undisturbed_error": calm,
        "error_gap": rough - calm,
        "steps": steps,
        "restarts": len(disturbed.restarts),
        "steps_lost": max((r.steps_lost for r in disturbed.restarts), default=0),
        "checkpoint_every": policy.checkpoint_every,
        "seconds": disturbed.seconds,
        "undisturbed_seconds": undisturbed.seconds,
        "left_behind": _left_behind() - before,
    }


def paced_stage(s: Settings, cuts: tuple[int, ...], seconds: float, k: int) -> Stage:
    """Build a recipe's stage that takes at least this many seconds per step, as if it had its own machine."""
    stage, last = build_stage(s, cuts, k), 0.0

    def pace(*call: Any) -> None:
        nonlocal last
        time.sleep(max(0.0, last + seconds - time.monotonic()))
        last = time.monotonic()

    stage.part.register_forward_hook(pace)
    return stage


class _FaultInjector:
    """Injects faults into one stage at a time, and measures its neighbours' rates."""

    def __init__(self, faults: int, seed: int, progress: Callable[[int], None]):
        self.progress = progress
        choose = random.Random(seed)
        kinds = [KINDS[i % len(KINDS)] for i in range(faults)]
        choose.shuffle(kinds)
        self.todo = [(kind, choose.randrange(4)) for kind in kinds]
        self.healthy: list[float] = []  # steps per second of each stage between faults
        self.rates: dict[str, list[float]] = {kind: [] for kind in KINDS}  # of neighbours, during such faults
        self.seconds: list[tuple[str, float]] = []  # each fault's kind, and the time until the stage ran as before
        self.since: tuple[float, list[int]] | None = None
        self.down: tuple[str, int, int] | None = None  # kind, stage and its generation during a fault

    def __call__(self, statuses: Sequence[Status]) -> None:
        """Start the next fault after the rest, or measure the present fault once its stage runs again."""
        now = time.monotonic()
        steps = [status.counters.steps for status in statuses]
        if any(status.state == "ended" for status in statuses):
            return
        if self.down is None:
            if any(status.state != "running" for status in statuses) or self.since is None:
                self.since = (now, steps)
            elif now - self.since[0] > REST and self.todo:
                self.healthy += _rates(self.since, now, steps, range(len(steps)))
                self._inject(statuses)
                self.since = (now, steps)
            return
        assert self.since is not None
        kind, k, generation = self.down
        back = statuses[k].state == "running" and statuses[k].generation > generation
        if back or (kind == "slow" and now - self.since[0] > SLOW_FOR):
            near = [j for j in (k - 1, k + 1) if 0 <= j < len(statuses)]
            self.rates[kind] += _rates(self.since, now, steps, near)
            self.seconds.append((kind, now - self.since[0]))
            self.progress(len(self.seconds))
            self.down = self.since = None

    def _inject(self, statuses: Sequence[Status]) -> None:
        kind, k = self.todo.pop()
        pid = statuses[k].pid
        assert pid is not None
        self.down = (kind, k, statuses[k].generation)
        if kind == "slow":
            threading.Thread(target=_slow_down, args=(pid,), daemon=True).start()
        else:
            os.kill(pid, signal.SIGKILL if kind == "kill" else signal.SIGSTOP)

    def summary(self) -> Row:
        """The faults' cost: rates of neighbours, and times of recovery."""
        healthy = statistics.mean(self.healthy)
        rates = {"": [*chain(*self.rates.values())], **{f"_{kind}": found for kind, found in self.rates.items()}}
        recovery = [seconds for kind, seconds in self.seconds if kind == "kill"]
        return {
            "faults": len(self.seconds),
            **{f"neighbour_rate{kind}": statistics.mean(r) / healthy if r else None for kind, r in rates.items()},
            "recovery_seconds": statistics.median(recovery) if recovery else None,
            "healthy_steps_per_second": healthy,
        }


def _rates(since: tuple[float, list[int]], now: float, steps: list[int], stages: Sequence[int]) -> list[float]:
    return [(steps[k] - since[1][k]) / (now - since[0]) for k in stages]


def _slow_down(pid: int) -> None:
    """Make a process three times slower: it is stopped in two of three slices of time."""
    until = time.monotonic() + SLOW_FOR
    with suppress(ProcessLookupError):
        while time.monotonic() < until:
            os.kill(pid, signal.SIGSTOP)
            time.sleep(2 * PACE)
            os.kill(pid, signal.SIGCONT)
            time.sleep(PACE)


def _left_behind() -> int:
    """Number of temporary folders of launches and of child processes; a launch must leave none behind."""
    return len([*Path(tempfile.gettempdir()).glob("synthgrad-*")]) + len(multiprocessing.active_children())
