"""Throughput of stages and of torch's pipeline schedules, as shares of what a pipeline without bubbles reaches."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from multiprocessing import get_context

import torch

from synthgrad.stages import Outcome, Policy, launch
from synthgrad_lab.data import load
from synthgrad_lab.feedforward.recipes import mnist_fcn
from synthgrad_lab.feedforward.settings import Settings
from synthgrad_lab.feedforward.training import Classification
from synthgrad_lab.running.jsonl import Row
from synthgrad_lab.running.settings import vary
from synthgrad_lab.stages.bench.builders import Sizes, emulated_part, emulated_stage, real_part
from synthgrad_lab.stages.bench.link import one_way
from synthgrad_lab.stages.bench.pipelines import Pipeline
from synthgrad_lab.stages.stage import assembled, build_stage
from synthgrad_lab.stages.trace import Timeline

Progress = Callable[[int], None]
"""Called with the number of runs done."""
FORWARD = 0.16
"""Seconds of an emulated stage's forward pass over a batch; in 8 microbatches, 20 ms each."""
MICROBATCHES = 8
WARMUP = 4
Timelines = dict[str, Timeline]
"""The last runs' timelines by schedule."""


def bench_emulated(
    stages: Sequence[int], repeats: int, progress: Progress, steps: int = 16
) -> tuple[list[Row], Timelines]:
    """Compare schedules of stages with emulated compute: a fixed time forwards, twice that backwards.

    Returns:
        Rows (``schedule, stages, samples_per_second, share_of_bound``), medians over the repeats; timelines.
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


def _emulated(schedule: str, sizes: Sizes, steps: int) -> tuple[float, Timeline]:
    """Samples per second and timeline of one run."""
    if schedule == "synthgrad":
        warmup = WARMUP + sizes.stages  # queues fill at the start, as in any pipeline
        build = partial(emulated_stage, sizes)
        outcome = launch(build, sizes.stages, steps + warmup, policy=Policy(queue=4))
        return rate_of(outcome, sizes.batch, warmup), outcome.events
    build = partial(emulated_part, sizes)
    pipeline = Pipeline(schedule, build, sizes.stages, MICROBATCHES, sizes.batch, sizes.width, None, steps)
    measured = pipeline.measure()
    return measured.samples_per_second, measured.events


def rate_of(outcome: Outcome, batch: int, warmup: int) -> float:
    """Samples per second of the last stage, after its first ``warmup`` steps."""
    ends = [e.end for e in outcome.events[-1] if e.kind == "update"][warmup - 1 :]
    return batch * (len(ends) - 1) / (ends[-1] - ends[0])


def bench_real(repeats: int, progress: Progress, steps: int = 40) -> tuple[list[Row], Timelines]:
    """Compare schedules of two balanced stages with real compute and one thread each.

    The net has 7 layers of width 1024 and learns MNIST in batches of 512.

    Returns:
        Rows (``schedule, stages, samples_per_second, share_of_bound, test_error``), and timelines.
        The bound is twice the rate of one process with one thread.
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
            pipeline = Pipeline("1f1b", build, 2, microbatches, s.batch, 784, 10, steps - WARMUP, WARMUP)
            measured = pipeline.measure()
            name = f"1f1b, {microbatches} microbatches"
            timelines[name] = measured.events
            keep(name, measured.samples_per_second)
    one = statistics.median(found["one-process, 1 thread"])
    rows = []
    for schedule, rates in found.items():
        stages = 1 if "process" in schedule else 2
        rows.append({**_row(schedule, stages, rates, 2 * one), "test_error": errors.get(schedule)})
    return rows, timelines


def bench_links(repeats: int = 7) -> list[Row]:
    """Measure the time that a packet takes to another process: rows of ``bytes, hop_ms``."""
    return [{"bytes": size, "hop_ms": 1000 * one_way(size, repeats)} for size in (256 << 10, 4 << 20)]


def _alone(s: Settings) -> tuple[float, float]:
    """Samples per second and test error of the recipe in one new process."""
    # Torch does not reliably change its number of threads within one process.
    with get_context("forkserver").Pool(1) as pool:
        return pool.apply(_train, (s,))


def _train(s: Settings) -> tuple[float, float]:
    torch.set_num_threads(s.run.threads)
    training, marks = Classification(s), []
    for step in range(s.steps):
        training.step(step)
        marks.append(time.monotonic())
    marks = marks[WARMUP - 1 :]
    rate = s.batch * (len(marks) - 1) / (marks[-1] - marks[0])
    return rate, training.trainer.error(training.data.test_x, training.data.test_y)
