"""Throughput of stages and of torch's pipeline schedules, as shares of a bound; the time that a packet takes."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import count, product
from multiprocessing import get_context

import torch
from torch import nn

from synthgrad.stages import Outcome, Policy, launch
from synthgrad_lab.feedforward.networks import network
from synthgrad_lab.feedforward.recipes import mnist_fcn
from synthgrad_lab.feedforward.settings import Settings
from synthgrad_lab.feedforward.training import Classification
from synthgrad_lab.running.jsonl import Row
from synthgrad_lab.running.settings import vary
from synthgrad_lab.stages.bench.emulated import Sizes, emulated_part, emulated_stage
from synthgrad_lab.stages.bench.pipelines import SCHEDULES, Pipeline
from synthgrad_lab.stages.split import build_stage, errors
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
    rows, timelines, done = [], Timelines(), count(1)
    for p in stages:
        sizes, rates = Sizes(p, FORWARD), defaultdict[str, list[float]](list)
        bound = sizes.batch / (3 * FORWARD)
        for _, schedule in product(range(repeats), ("synthgrad", *SCHEDULES)):
            rate, events = _emulated(schedule, sizes, steps)
            rates[schedule].append(rate)
            if p == min(stages):
                timelines[schedule] = events
            progress(next(done))
        rows += [_row(schedule, p, found, bound) for schedule, found in rates.items()]
        rows.append({"schedule": "bound", "stages": p, "samples_per_second": bound, "share_of_bound": 1.0})
    return rows, timelines


def _row(schedule: str, stages: int, rates: Sequence[float], bound: float) -> Row:
    rate = statistics.median(rates)
    row = {"schedule": schedule, "stages": stages, "samples_per_second": rate, "share_of_bound": rate / bound}
    return row | {"spread": (max(rates) - min(rates)) / rate}


def _emulated(schedule: str, sizes: Sizes, steps: int) -> tuple[float, Timeline]:
    """Samples per second and timeline of one run."""
    if schedule == "synthgrad":
        warmup = WARMUP + sizes.stages  # queues fill at the start, as in any pipeline
        build = partial(emulated_stage, sizes)
        outcome = launch(build, sizes.stages, steps + warmup, policy=Policy(queue=4))
        return rate_of(outcome, sizes.batch, warmup), outcome.events
    build = partial(emulated_part, sizes)
    job = Pipeline(schedule, build, sizes.stages, MICROBATCHES, sizes.batch, sizes.width, None, steps)
    measured = job.measure()
    return measured.samples_per_second, measured.events


def rate_of(outcome: Outcome, batch: int, warmup: int) -> float:
    """Samples per second of the last stage, after its first ``warmup`` steps."""
    return _rate([e.end for e in outcome.events[-1] if e.kind == "update"], batch, warmup)


def _rate(ends: Sequence[float], batch: int, warmup: int) -> float:
    return batch * (len(ends) - warmup) / (ends[-1] - ends[warmup - 1])


def bench_real(repeats: int, progress: Progress, steps: int = 40) -> tuple[list[Row], Timelines]:
    """Compare schedules of two balanced stages with real compute and one thread each.

    The net has 7 layers of width 1024 and learns MNIST in batches of 512.

    Returns:
        Rows (``schedule, stages, samples_per_second, share_of_bound, test_error``), and timelines.
        The bound is twice the rate of one process with one thread.
    """
    s = replace(mnist_fcn("cdni"), layers=7, width=1024, batch=512, steps=steps)
    cuts, rates, done = (3,), defaultdict[str, list[float]](list), count(1)
    test_errors, timelines = dict[str, float](), Timelines()

    def keep(schedule: str, rate: float) -> None:
        rates[schedule].append(rate)
        progress(next(done))

    for _ in range(repeats):
        for threads in (1, 2):
            name = f"one-process, {threads} thread{'s' * (threads > 1)}"
            rate, test_errors[name] = _alone(vary(s, {"method": "bprop", "run.threads": threads}))
            keep(name, rate)
        outcome = launch(partial(build_stage, s, cuts), 2, s.steps, policy=Policy(queue=4))
        test_errors["synthgrad"] = errors(s, cuts, outcome.states)["test_error"]
        timelines["synthgrad"] = outcome.events
        keep("synthgrad", rate_of(outcome, s.batch, WARMUP))
        for microbatches in (4, 8):
            build, name = partial(real_part, s, cuts), f"1f1b, {microbatches} microbatches"
            measured = Pipeline("1f1b", build, 2, microbatches, s.batch, 784, 10, steps - WARMUP, WARMUP).measure()
            timelines[name] = measured.events
            keep(name, measured.samples_per_second)
    bound = 2 * statistics.median(rates["one-process, 1 thread"])
    rows = [_row(name, 1 if "process" in name else 2, found, bound) for name, found in rates.items()]
    return [row | {"test_error": test_errors.get(row["schedule"])} for row in rows], timelines


def real_part(s: Settings, cuts: tuple[int, ...], k: int, of: int) -> nn.Module:
    """Build part k of a recipe's network, cut like its stages; its input is flat, as in ``Pipeline``."""
    bounds = (0, *cuts, s.layers)
    return nn.Sequential(*network(s)[bounds[k] : bounds[k + 1]])


def _alone(s: Settings) -> tuple[float, float]:
    """Samples per second and test error in a new process: torch does not reliably change its number of threads."""
    with get_context("forkserver").Pool(1) as pool:
        return pool.apply(_train, (s,))


def _train(s: Settings) -> tuple[float, float]:
    torch.set_num_threads(s.run.threads)
    training, ends = Classification(s), []
    for step in range(s.steps):
        training.step(step)
        ends.append(time.monotonic())
    return _rate(ends, s.batch, WARMUP), training.trainer.error(training.data.test_x, training.data.test_y)
