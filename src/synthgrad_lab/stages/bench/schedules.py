"""How near stages that do not wait come to the bubble-free bound, beside the schedules of torch's pipelining."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from typing import Any

import torch

from synthgrad.stages import Outcome, Policy, launch
from synthgrad.stages.outcome import StageEvent
from synthgrad_lab.data import load
from synthgrad_lab.feedforward.recipes import mnist_fcn
from synthgrad_lab.feedforward.settings import Settings
from synthgrad_lab.feedforward.training import Classification
from synthgrad_lab.running.settings import vary
from synthgrad_lab.stages.bench.built import Sizes, emulated_part, emulated_stage, real_part
from synthgrad_lab.stages.bench.link import hops
from synthgrad_lab.stages.bench.pipelines import bench_pipeline
from synthgrad_lab.stages.split import assembled, build_stage

Row = dict[str, Any]
Progress = Callable[[int], None]
FORWARD = 0.16
"""Seconds of an emulated stage's forward pass over a batch; in 8 microbatches, 20 ms each."""
MICROBATCHES = 8
WARMUP = 4
Timelines = dict[str, list[list[StageEvent]]]
"""By schedule: what each stage did."""


def bench_emulated(
    stages: Sequence[int] = (2, 4, 8), repeats: int = 3, steps: int = 16, progress: Progress = lambda done: None
) -> tuple[list[Row], Timelines]:
    """Stages whose compute is emulated: a fixed time forwards, twice that backwards.

    Args:
        stages: how many, one row of schedules each.
        repeats: rounds over the schedules; each number is the median over them.
        steps: timed steps of each run.
        progress: called with the number of runs done.

    Returns:
        Rows (``schedule, stages, samples_per_second, share_of_bound``), and the last run's timelines.
    """
    rows, timelines, done = [], Timelines(), 0
    for p in stages:
        sizes = Sizes(p, FORWARD)
        bound = sizes.batch / (3 * FORWARD)
        found: dict[str, list[float]] = {}
        for _ in range(repeats):
            for schedule in ("synthgrad", "gpipe", "1f1b", "zbv"):
                rate, events = _emulated(schedule, sizes, steps)
                found.setdefault(schedule, []).append(rate)
                if p == min(stages):
                    timelines[schedule] = events
                progress(done := done + 1)
        rows += [_row(schedule, p, rates, bound) for schedule, rates in found.items()]
        rows.append({"schedule": "bound", "stages": p, "samples_per_second": bound, "share_of_bound": 1.0})
    return rows, timelines


def _row(schedule: str, stages: int, rates: Sequence[float], bound: float) -> Row:
    rate = statistics.median(rates)
    spread = (max(rates) - min(rates)) / rate
    return {
        "schedule": schedule,
        "stages": stages,
        "samples_per_second": rate,
        "share_of_bound": rate / bound,
        "spread": spread,
    }


def _emulated(schedule: str, sizes: Sizes, steps: int) -> tuple[float, list[list[StageEvent]]]:
    if schedule == "synthgrad":
        # Messages queue up at the start as in any pipeline; what is timed is what follows.
        outcome = launch(
            partial(emulated_stage, sizes), sizes.stages, steps + WARMUP + sizes.stages, policy=Policy(queue=4)
        )
        return rate_of(outcome, sizes.batch, WARMUP + sizes.stages), outcome.events
    of = sizes.stages
    build = partial(emulated_part, sizes)
    measured = bench_pipeline(schedule, build, of, MICROBATCHES, sizes.batch, sizes.width, None, steps)
    return measured.samples_per_second, [[_event(e) for e in rank] for rank in measured.events]


def _event(e: dict[str, Any]) -> StageEvent:
    return StageEvent(e["kind"], e["start"], e["end"], e["step"])


def rate_of(outcome: Outcome, batch: int, warmup: int) -> float:
    """Samples per second of the last stage, once all stages are at work."""
    ends = [e.end for e in outcome.events[-1] if e.kind == "update"][warmup - 1 :]
    return batch * (len(ends) - 1) / (ends[-1] - ends[0])


def bench_real(
    repeats: int = 3, steps: int = 40, progress: Progress = lambda done: None
) -> tuple[list[Row], Timelines]:
    """Two balanced stages, real compute, one thread each: MNIST, 7 layers of width 1024, batch 512.

    Args:
        repeats: rounds over the schedules; each number is the median over them.
        steps: of every run.
        progress: called with the number of runs done.

    Returns:
        Rows (``schedule, stages, samples_per_second, share_of_bound, test_error``), the share being of twice
        one process with one thread, and the last run's timelines.
    """
    s = replace(mnist_fcn("cdni"), layers=7, width=1024, batch=512, steps=steps)
    cuts = (3,)
    found: dict[str, list[float]] = {}
    errors: dict[str, float] = {}
    timelines, done = Timelines(), 0

    def keep(schedule: str, rate: float) -> None:
        nonlocal done
        found.setdefault(schedule, []).append(rate)
        progress(done := done + 1)

    for _ in range(repeats):
        for threads in (1, 2):
            name = f"one-process, {threads} thread{'s' * (threads > 1)}"
            rate, errors[name] = _alone(vary(s, {"method": "bprop", "run.threads": threads}))
            keep(name, rate)
        outcome = launch(partial(build_stage, s, cuts), 2, s.steps, policy=Policy(queue=4))
        images = load(s.data)
        errors["synthgrad"] = assembled(s, cuts, outcome.states).error(images.test_x, images.test_y)
        timelines["synthgrad"] = outcome.events
        keep("synthgrad", rate_of(outcome, s.batch, WARMUP))
        for microbatches in (4, 8):
            build = partial(real_part, s, cuts)
            measured = bench_pipeline("1f1b", build, 2, microbatches, s.batch, 784, 10, steps - WARMUP, WARMUP)
            name = f"1f1b, {microbatches} microbatches"
            timelines[name] = [[_event(e) for e in rank] for rank in measured.events]
            keep(name, measured.samples_per_second)
    one = statistics.median(found["one-process, 1 thread"])
    rows = []
    for schedule, rates in found.items():
        stages = 1 if "process" in schedule else 2
        rows.append({**_row(schedule, stages, rates, 2 * one), "test_error": errors.get(schedule)})
    return rows, timelines


def bench_links(repeats: int = 7) -> list[Row]:
    """A packet's way to another process, one way, median: ``bytes, hop_ms``."""
    return [{"bytes": size, "hop_ms": 1000 * hops(size, repeats)} for size in (256 << 10, 4 << 20)]


def _alone(s: Settings) -> tuple[float, float]:
    """Samples per second and test error of the recipe in a process of its own."""
    # A new process: this one's threads, once set, are not to be trusted with another number.
    with get_context("forkserver").Pool(1) as pool:
        return pool.apply(_trained, (s,))


def _trained(s: Settings) -> tuple[float, float]:
    import time

    torch.set_num_threads(s.run.threads)
    training, marks = Classification(s), []
    for step in range(s.steps):
        training.step(step)
        marks.append(time.monotonic())
    marks = marks[WARMUP - 1 :]
    rate = s.batch * (len(marks) - 1) / (marks[-1] - marks[0])
    return rate, training.trainer.error(training.data.test_x, training.data.test_y)
