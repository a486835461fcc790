"""Memory of a round of the multi-network system over T: end to end it holds T² steps, with an interface T."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from synthgrad_lab.clocks.recipes import clocks
from synthgrad_lab.clocks.settings import LABELS, Method
from synthgrad_lab.running.bench import Bar, Bench
from synthgrad_lab.running.jsonl import Row
from synthgrad_lab.running.ranges import Count
from synthgrad_lab.running.settings import vary

COMPARED: tuple[Method, ...] = ("bprop", "dni", "cdni")


@dataclass(frozen=True)
class Clocks(Bench):
    """Memory of a round of two networks on two clocks, on noise: the peak above what was allocated before it."""

    lengths: tuple[Count, ...] = (2, 4, 6, 8)
    """Values of T."""

    def measure(self, bar: Bar) -> tuple[list[Row], dict[str, Any]]:
        """Measure every T and method; ``memory_ratio`` is to Bprop with the same T."""
        from synthgrad_lab.clocks.schedule import on_noise
        from synthgrad_lab.running.measure import allocated

        rows, progress = [], bar("T", len(self.lengths))
        for done, T in enumerate(self.lengths, start=1):
            memory: dict[Method, int] = {}
            for method in COMPARED:
                one_round = on_noise(vary(clocks(method), {"T": T}))
                one_round()  # optimizers allocate their state
                memory[method] = allocated(one_round)
            for method, value in memory.items():
                ratio = value / memory["bprop"]
                rows.append({"T": T, "method": LABELS[method], "memory_mb": value / 2**20, "memory_ratio": ratio})
            progress(done)
        return rows, {}


BENCHES: dict[str, type[Bench]] = {"clocks": Clocks}
