"""The cost of each further stage: up to 16 emulated stages on this machine."""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import psutil

from synthgrad.stages import Policy, Status, launch
from synthgrad_lab.running.jsonl import Row
from synthgrad_lab.stages.bench.emulated import Sizes, emulated_stage
from synthgrad_lab.stages.bench.schedules import WARMUP, rate_of

FORWARD = 0.1
WIDTH, BATCH = 1024, 64


def bench_scale(stages: Sequence[int], progress: Callable[[int], None], steps: int = 30) -> list[Row]:
    """Measure chains of emulated stages with messages of 256 KB; ``progress`` gets the number of chains done.

    Returns:
        A row per length: ``stages, samples_per_second, share_of_bound, cpu_ms_per_step`` (one stage's, without the
        emulated compute), ``memory_mb`` (one process's, without what it shares), ``message_kb, checkpoint_kb,
        start_seconds`` (until every stage has made a step).
    """
    rows: list[Row] = []
    policy, bound = Policy(queue=4, checkpoint_every=10), BATCH / (3 * FORWARD)
    for p in stages:
        build, warmup, watch = partial(emulated_stage, Sizes(p, FORWARD, BATCH, WIDTH)), WARMUP + p, _Watch()
        with tempfile.TemporaryDirectory(prefix="synthgrad-") as folder:
            outcome = launch(build, p, steps + warmup, folder=folder, policy=policy, watch=watch)
            checkpoint = max(path.stat().st_size for path in Path(folder).glob("*/checkpoint.pt"))
        rate = rate_of(outcome, BATCH, warmup)
        row = {"stages": p, "samples_per_second": rate, "share_of_bound": rate / bound}
        row |= {"cpu_ms_per_step": 1000 * watch.cpu, "memory_mb": watch.memory / 2**20}
        row |= {"message_kb": 4 * BATCH * WIDTH / 1024, "checkpoint_kb": checkpoint / 1024}
        rows.append(row | {"start_seconds": watch.started})
        progress(len(rows))
    return rows


class _Watch:
    """Measures the stages' processes while they run, about once a second."""

    def __init__(self) -> None:
        self.began = self.measured = time.monotonic()
        self.first: dict[int, tuple[float, int]] = {}
        self.started = math.nan
        self.cpu = self.memory = 0.0
        """A stage's seconds per step and bytes: medians over the stages in the last measurement."""

    def __call__(self, statuses: Sequence[Status]) -> None:
        now = time.monotonic()
        if not all(status.state == "running" and status.counters.steps for status in statuses):
            return
        if math.isnan(self.started):
            self.started = now - self.began
        if now - self.measured < 1:
            return
        self.measured, cpu, memory = now, [], []
        for status in statuses:
            process = psutil.Process(status.pid)
            spent, steps = sum(process.cpu_times()[:2]), status.counters.steps
            since, before = self.first.setdefault(status.k, (spent, steps))
            if steps > before:
                cpu.append((spent - since) / (steps - before))
            memory.append(process.memory_full_info().uss)
        self.cpu, self.memory = statistics.median(cpu or [0.0]), statistics.median(memory)
