"""The peak memory of a step over depth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from synthgrad_lab.feedforward.profiling import peak
from synthgrad_lab.feedforward.recipes import mnist_fcn
from synthgrad_lab.feedforward.settings import Method
from synthgrad_lab.feedforward.trainer import Trainer
from synthgrad_lab.running.jsonl import Row

DEPTHS = (4, 8, 16, 32)
METHODS: tuple[Method, ...] = ("bprop", "cdni")


def bench_memory(width: int, batch: int, progress: Callable[[int], None]) -> list[Row]:
    """Measure the peak memory of a step of a chain of equal layers, above what was allocated before it.

    Returns:
        A row per depth: ``depth``, ``bprop_mb``, ``cdni_mb`` (unlocked cDNI) and their ``ratio``.
    """
    rows = []
    for depth in DEPTHS:
        row: Row = {"depth": depth}
        for method in METHODS:
            row[f"{method}_mb"] = measured(method, depth, width, batch) / 2**20
            progress(2 * len(rows) + (method == "cdni") + 1)
        row["ratio"] = row["cdni_mb"] / row["bprop_mb"]
        rows.append(row)
    return rows


def measured(method: Method, depth: int, width: int, batch: int) -> int:
    """Bytes at the highest point of one step of a chain of equal layers."""
    s = replace(mnist_fcn(method), layers=depth, width=width, batch=batch)
    trainer = Trainer(s)
    trainer.parts[0] = nn.Sequential(nn.Linear(s.width, s.width), nn.BatchNorm1d(s.width), nn.ReLU())
    return peak(trainer, torch.rand(s.batch, s.width), torch.randint(10, (s.batch,)))
