"""What an update of a recurrent net costs, by method, and that its memory does not grow with the stream."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from synthgrad_lab.recurrent.settings import LABELS, Method, Settings
from synthgrad_lab.recurrent.training import Sequences
from synthgrad_lab.running.measure import allocated, interleaved
from synthgrad_lab.running.settings import vary

CELLS = ("rnn", "gru", "lstm")
CASES: dict[str, tuple[Method, dict[str, Any]]] = {
    LABELS["bptt"]: ("bptt", {}),
    LABELS["dni"]: ("dni", {}),
    "DNI, M with 16 hidden units": ("dni", {"model.hidden": 16}),
    "DNI, scale 0.1": ("dni", {"scale": 0.1}),
    LABELS["dni-aux"]: ("dni-aux", {}),
}
LATER = 500
"""Updates between the two looks at the memory."""


def bench_recurrent(
    units: int, T: int = 5, repeats: int = 15, progress: Callable[[int], None] = lambda done: None
) -> list[dict[str, Any]]:
    """Time an update of each method on ``add``, one thread, interleaved.

    Args:
        units: of the core; M has 64 hidden units, the batch 100 streams.
        T: steps of a chunk.
        repeats: rounds.
        progress: called with the number of cells done.

    Returns:
        A row per cell and method: ``cell, units, T, method, ms, ratio`` (to truncated BPTT, median over rounds),
        ``memory_kb`` (the peak of one update above what was there before it), and ``memory_later_kb``, the same
        after 500 more updates of the same stream.
    """
    rows = []
    for done, cell in enumerate(CELLS, start=1):
        trainings = {
            name: Sequences(vary(Settings(method=method, cell=cell, width=units, T=T), {**changes}))
            for name, (method, changes) in CASES.items()
        }
        memory = {name: _memory(training) for name, training in trainings.items()}
        for training in trainings.values():
            for n in range(LATER):
                training.step(n)
        later = {name: _memory(training) for name, training in trainings.items()}
        times = interleaved({name: lambda t=t: t.step(0) for name, t in trainings.items()}, repeats)
        base = times[LABELS["bptt"]]
        for name in CASES:
            ratio = statistics.median(a / b for a, b in zip(times[name], base, strict=True))
            rows.append(
                {
                    "cell": cell,
                    "units": units,
                    "T": T,
                    "method": name,
                    "ms": 1000 * statistics.median(times[name]),
                    "ratio": ratio,
                    "memory_kb": memory[name] / 2**10,
                    "memory_later_kb": later[name] / 2**10,
                }
            )
        progress(done)
    return rows


def _memory(training: Sequences) -> int:
    for _ in range(12):  # past the chunks that are all measured; the next one is not
        training.step(0)
    return allocated(lambda: training.step(0))
