"""The paper's multi-network system: two networks on two clocks, at equal numbers of digits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from synthgrad.checkpoint import write_atomically
from synthgrad_lab.clocks.schedule import drawn, schedule
from synthgrad_lab.clocks.settings import METHODS, Method, Settings, clocks
from synthgrad_lab.reporting.figures import svg
from synthgrad_lab.running.settings import vary

SEEDS = 3
DIGITS = 1_536_000
"""That every run sees."""
COMPARED: dict[int, tuple[Method, ...]] = {4: METHODS, 6: ("bprop", "dni", "cdni"), 8: ("bprop", "dni", "cdni")}
"""Methods by T."""


def cells() -> dict[str, Settings]:
    """Every run by name: T, method, seed; all once before any twice."""
    return {
        f"T{T}-{method}-seed{seed}": sized(replace(clocks(method), T=T, seed=seed))
        for seed in range(SEEDS)
        for T, methods in COMPARED.items()
        for method in methods
    }


def sized(s: Settings) -> Settings:
    """With the rounds that make the digits, and thirty points of the curve."""
    steps = DIGITS // (s.T**2 * s.batch)
    return vary(s, {"steps": steps, "run.eval_every": max(steps // 30, 1)})


def draw(path: Path) -> Path:
    """The schedules of Bprop and DNI, T = 4, as running them gives them."""
    write_atomically(path, svg(drawn({method: schedule(clocks(method)) for method in ("bprop", "dni")})))
    return path
