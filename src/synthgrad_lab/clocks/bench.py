"""Memory of a round of the multi-network system over T: end to end it holds T² steps, with an interface T."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from synthgrad_lab.clocks.settings import LABELS, clocks
from synthgrad_lab.clocks.training import on_noise
from synthgrad_lab.running.measure import allocated

LENGTHS = (2, 4, 6, 8)


def bench_clocks(progress: Callable[[int], None] = lambda done: None) -> list[dict[str, Any]]:
    """The peak of one round above what was there before it, on noise.

    Args:
        progress: called with the number of lengths done.

    Returns:
        A row per T and method: ``T, method, memory_mb, memory_ratio`` (to Bprop at the same T).
    """
    rows = []
    for done, T in enumerate(LENGTHS, start=1):
        memory = {method: _memory(T, method) for method in ("bprop", "dni", "cdni")}
        rows += [
            {
                "T": T,
                "method": LABELS[method],
                "memory_mb": value / 2**20,
                "memory_ratio": value / memory["bprop"],
            }
            for method, value in memory.items()
        ]
        progress(done)
    return rows


def _memory(T: int, method: Any) -> int:
    one_round = on_noise(replace(clocks(method), T=T))
    one_round()  # optimizers allocate their state
    return allocated(one_round)
