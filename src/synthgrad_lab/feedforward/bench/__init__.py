"""Benchmarks of feed-forward steps: ratios within one run, measured in turn, medians over repeats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from synthgrad_lab.running.bench import Bar, Bench
from synthgrad_lab.running.jsonl import Row
from synthgrad_lab.running.ranges import Count, FromTwo
from synthgrad_lab.running.settings import Checked


@dataclass(frozen=True)
class Step(Bench, Checked):
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
class Memory(Bench, Checked):
    """Peak memory of a step over depth: backpropagation keeps all layers' activations, unlocked DNI one layer's."""

    width: Count = 256
    """Units of every layer."""
    batch: FromTwo = 4096
    """Examples; with fewer, the gradients of one layer's weights would outweigh the activations."""

    def measure(self, bar: Bar) -> tuple[list[Row], dict[str, Any]]:
        """Rows by depth."""
        from synthgrad_lab.feedforward.bench.memory import DEPTHS, bench_memory

        return bench_memory(self.width, self.batch, bar("memory", 2 * len(DEPTHS))), {}


@dataclass(frozen=True)
class Methods(Bench, Checked):
    """Time, parameters and memory of each method on each of the paper's networks, relative to backpropagation's."""

    repeats: Count = 15
    """Rounds; each times every method once."""

    def measure(self, bar: Bar) -> tuple[list[Row], dict[str, Any]]:
        """Rows by network and method."""
        from synthgrad_lab.feedforward.bench.methods import bench_methods
        from synthgrad_lab.feedforward.recipes import RECIPES

        return bench_methods(self.repeats, bar("networks", len(RECIPES))), {}


BENCHES: dict[str, type[Bench]] = {"step": Step, "memory": Memory, "methods": Methods}
