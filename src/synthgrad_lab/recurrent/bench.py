"""The cost of a recurrent update by method, and a check that its memory does not grow with the stream."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from synthgrad_lab.recurrent.settings import LABELS, Method, Settings
from synthgrad_lab.running.bench import Bar, Bench
from synthgrad_lab.running.jsonl import Row
from synthgrad_lab.running.ranges import Count
from synthgrad_lab.running.settings import vary

CELLS = ("rnn", "gru", "lstm")
CASES: dict[str, tuple[Method, dict[str, Any]]] = {
    LABELS["bptt"]: ("bptt", {}),
    LABELS["dni"]: ("dni", {}),
    "DNI, M with 16 hidden units": ("dni", {"model.hidden": 16}),
    "DNI, scale 0.1": ("dni", {"model.scale": 0.1}),
    LABELS["dni-aux"]: ("dni-aux", {}),
}
LATER = 500
"""Updates between the two measurements of memory."""


@dataclass(frozen=True)
class Recurrent(Bench):
    """Time and memory of an update on ``add``, by cell and method: one thread, methods interleaved, 100 streams."""

    widths: tuple[Count, ...] = (32, 256)
    """Units of the core; M has 64 hidden units."""
    T: Count = 5
    """Steps of a chunk."""
    repeats: Count = 15
    """Rounds of timing."""

    def measure(self, bar: Bar) -> tuple[list[Row], dict[str, Any]]:
        """Measure every width, cell and method.

        Times are medians over rounds, their ratio is to truncated BPTT; memory is the peak of one update above what
        was allocated before it, ``memory_later_kb`` the same after 500 more updates of the same stream.
        """
        rows = []
        for width in self.widths:
            progress = bar(f"{width} units", len(CELLS))
            for done, cell in enumerate(CELLS, start=1):
                rows += self._rows(cell, width)
                progress(done)
        return rows, {}

    def _rows(self, cell: Any, width: int) -> Iterator[Row]:
        from synthgrad_lab.running.measure import interleaved

        trainings = {
            name: vary(Settings(method=method, cell=cell, width=width, T=self.T), changes).start()
            for name, (method, changes) in CASES.items()
        }
        memory = {name: _memory(training) for name, training in trainings.items()}
        for training in trainings.values():
            for n in range(LATER):
                training.step(n)
        later = {name: _memory(training) for name, training in trainings.items()}
        times = interleaved({name: lambda t=t: t.step(0) for name, t in trainings.items()}, self.repeats)
        base = times[LABELS["bptt"]]
        for name in CASES:
            yield {
                "cell": cell,
                "units": width,
                "T": self.T,
                "method": name,
                "ms": 1000 * statistics.median(times[name]),
                "ratio": statistics.median(a / b for a, b in zip(times[name], base, strict=True)),
                "memory_kb": memory[name] / 2**10,
                "memory_later_kb": later[name] / 2**10,
            }


def _memory(training: Any) -> int:
    from synthgrad_lab.running.measure import allocated

    for _ in range(12):  # the library probes each of the first chunks, which needs more memory; not the next one
        training.step(0)
    return allocated(lambda: training.step(0))


BENCHES: dict[str, type[Bench]] = {"recurrent": Recurrent}
