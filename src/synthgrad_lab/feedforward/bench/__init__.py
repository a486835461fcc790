"""Benchmarks of feed-forward steps: ratios within one run, measured in turn, medians over repeats."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from synthgrad_lab.feedforward.budgets import BUDGETS
from synthgrad_lab.feedforward.recipes import RECIPES
from synthgrad_lab.feedforward.settings import LABELS, METHODS
from synthgrad_lab.running.bench import Bar, Bench
from synthgrad_lab.running.jsonl import Row
from synthgrad_lab.running.ranges import Count, FromTwo

DEPTHS = (4, 8, 16, 32)
"""Layers of the chains whose memory is measured."""


@dataclass(frozen=True)
class Step(Bench):
    """Time of a training step relative to backpropagation's, beside what its arithmetic predicts."""

    widths: tuple[Count, ...] = (256, 1024)
    """Hidden units of the 4-layer net."""
    repeats: Count = 15
    """Rounds; each times every case for about 0.2 s."""

    def measure(self, bar: Bar) -> tuple[list[Row], dict[str, Any]]:
        """Rows by width and case."""
        from synthgrad_lab.feedforward.bench.step import bench_step

        return [
            row for w in self.widths for row in bench_step(w, self.repeats, bar(f"width {w}", self.repeats))
        ], {}


@dataclass(frozen=True)
class Memory(Bench):
    """Peak memory of a step over depth: backpropagation keeps all layers' activations, unlocked DNI one layer's."""

    width: Count = 256
    """Units of every layer."""
    batch: FromTwo = 4096
    """Examples; with fewer, the gradients of one layer's weights would outweigh the activations."""

    def measure(self, bar: Bar) -> tuple[list[Row], dict[str, Any]]:
        """Rows by depth: ``bprop_mb``, ``cdni_mb`` (unlocked cDNI) and their ``ratio``."""
        from synthgrad_lab.feedforward.bench.step import peak_of_chain

        rows: list[Row] = []
        done, progress = count(1), bar("memory", 2 * len(DEPTHS))
        for depth in DEPTHS:
            row: Row = {"depth": depth}
            for method in ("bprop", "cdni"):
                row[f"{method}_mb"] = peak_of_chain(method, depth, self.width, self.batch) / 2**20
                progress(next(done))
            rows.append(row | {"ratio": row["cdni_mb"] / row["bprop_mb"]})
        return rows, {}


@dataclass(frozen=True)
class Methods(Bench):
    """Time, parameters and memory of each method on each of the paper's networks, relative to backpropagation's."""

    repeats: Count = 15
    """Rounds; each times every method once."""

    def measure(self, bar: Bar) -> tuple[list[Row], dict[str, Any]]:
        """Measure a step on every network at 4 layers, with the standard budget's widths and one thread.

        Returns:
            A row per network and method: ``network``, ``method``, ``ratio`` (seconds per step over Bprop's, median
            over rounds), ``model_parameters`` (beside the layers', in percent of theirs), ``memory_mb`` (peak of a
            step above what was there before it) and ``memory_ratio`` (to Bprop).
        """
        from synthgrad_lab.feedforward.bench.step import batch_of, relative_cost
        from synthgrad_lab.feedforward.profiling import peak
        from synthgrad_lab.feedforward.trainer import Trainer

        rows: list[Row] = []
        progress = bar("networks", len(RECIPES))
        for done, recipe in enumerate(RECIPES, start=1):
            chosen = {LABELS[m]: replace(BUDGETS["standard"].settings(recipe, m), layers=4) for m in METHODS}
            cost = relative_cost(chosen, self.repeats)
            trainers = {method: Trainer(s) for method, s in chosen.items()}
            memory = {method: peak(t, *batch_of(t.settings)) / 2**20 for method, t in trainers.items()}
            for method, s in chosen.items():
                layers, beside = trainers[method].count_parameters()
                place = {"network": f"{recipe}, width {s.width}, batch {s.batch}", "method": method}
                time = {"ratio": cost[method], "model_parameters": 100 * beside / layers}
                space = {"memory_mb": memory[method], "memory_ratio": memory[method] / memory["Bprop"]}
                rows.append({**place, **time, **space})
            progress(done)
        return rows, {}


BENCHES: dict[str, type[Bench]] = {"step": Step, "memory": Memory, "methods": Methods}
