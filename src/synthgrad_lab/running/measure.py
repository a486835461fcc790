"""Measures the peak memory of a call, and the times of several calls in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile


def allocated(step: Callable[[], object]) -> int:
    """Bytes at the highest point of a call on the CPU, above those allocated before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    live = highest = 0
    # The profiler's raw events: every allocation and release, in order of time.
    events = profiler.profiler.kineto_results.events()  # pyright: ignore[reportOptionalMemberAccess]
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        live += event.nbytes()  # pyright: ignore[reportAttributeAccessIssue]
        highest = max(highest, live)
    return highest


Step = Callable[[], Any]


def interleaved(
    steps: Mapping[str, Step], repeats: int, progress: Callable[[int], None] = lambda done: None
) -> dict[str, list[float]]:
    """Seconds per call of each step, by round; every round times all steps, so that noise hits all alike."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        calls = {}
        for name, step in steps.items():
            step()
            calls[name] = max(1, round(0.2 / _seconds(step, 3)))
        times: dict[str, list[float]] = {name: [] for name in steps}
        for done in range(1, repeats + 1):
            for name, step in steps.items():
                times[name].append(_seconds(step, calls[name]))
            progress(done)
        return times
    finally:
        torch.set_num_threads(threads)


def _seconds(step: Step, calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        step()
    return (time.perf_counter() - began) / calls
