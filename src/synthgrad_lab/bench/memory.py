"""Peak activation memory of a step over depth: backprop keeps every layer's, unlocked DNI one layer's."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from synthgrad_lab.recipes import Method, mnist_fcn
from synthgrad_lab.training import Trainer

DEPTHS = (4, 8, 16, 32)
METHODS: tuple[Method, ...] = ("bprop", "cdni")


def bench_memory(
    width: int = 256, batch: int = 4096, progress: Callable[[int], None] = lambda done: None
) -> list[dict]:
    """Peak memory that a step allocates beyond what was there before it, for equal layers.

    Args:
        width: units of every layer.
        batch: examples; large, so that activations outweigh the gradients of one layer's weights.
        progress: called with the number of measurements done.

    Returns:
        A row per depth: ``depth``, ``bprop_mb``, ``dni_mb`` (unlocked cDNI) and their ``ratio``.
    """
    rows = []
    for depth in DEPTHS:
        row: dict[str, Any] = {"depth": depth}
        for method in METHODS:
            row[f"{method}_mb"] = peak(method, depth, width, batch) / 2**20
            progress(2 * len(rows) + (method == "cdni") + 1)
        row["ratio"] = row["cdni_mb"] / row["bprop_mb"]
        rows.append(row)
    return rows


def peak(method: Method, depth: int, width: int, batch: int) -> int:
    """Bytes at the highest point of one step, above what was allocated before it."""
    s = replace(mnist_fcn(method), layers=depth, width=width, batch=batch)
    trainer = Trainer(s)
    trainer.parts[0] = nn.Sequential(nn.Linear(s.width, s.width), nn.BatchNorm1d(s.width), nn.ReLU())
    x, y = torch.rand(s.batch, s.width), torch.randint(10, (s.batch,))
    trainer.step(x, y)  # optimizers allocate their state in the first step
    if s.device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        trainer.step(x, y)
        return torch.cuda.max_memory_allocated() - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler greets on standard error
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        trainer.step(x, y)
    live = highest = 0
    # The profiler's raw events: every allocation and release, in order of time.
    events = profiler.profiler.kineto_results.events()  # pyright: ignore[reportOptionalMemberAccess]
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        live += event.nbytes()  # pyright: ignore[reportAttributeAccessIssue]
        highest = max(highest, live)
    return highest
