"""The paper's multi-network system: two networks on two clocks, at equal numbers of digits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from synthgrad_lab.clocks.recipes import clocks
from synthgrad_lab.clocks.settings import METHODS, Method
from synthgrad_lab.running.experiment import Experiment, Planned
from synthgrad_lab.running.jsonl import Row
from synthgrad_lab.running.settings import vary

SEEDS = 3
DIGITS = 1_536_000
"""Digits that every run sees, with thirty points of the curve."""
COMPARED: dict[int, tuple[Method, ...]] = {4: METHODS, 6: ("bprop", "dni", "cdni"), 8: ("bprop", "dni", "cdni")}
"""Methods by T."""


@dataclass(frozen=True)
class TwoClocks(Experiment):
    """Two networks on two clocks with T = 4, 6 and 8: end to end, cut, and with synthetic gradients."""

    name = "clocks"
    records = "clocks"

    def runs(self, gathered: Sequence[Row]) -> Iterator[Planned]:
        """Every T and method with every seed; all variants once before any variant twice."""
        for seed in range(SEEDS):
            for T, methods in COMPARED.items():
                for method in methods:
                    s = vary(clocks(method), {"T": T, "seed": seed})
                    steps = DIGITS // (T**2 * s.batch)
                    s = vary(s, {"steps": steps, "run.eval_every": max(steps // 30, 1)})
                    yield Planned({"variant": f"T{T}-{method}"}, s)

    def finish(self, out: Path, results: Path) -> list[Path]:
        """Draw the schedules of Bprop and DNI, with T = 4, as running them records them."""
        from synthgrad.checkpoint import write_atomically
        from synthgrad_lab.clocks.report import drawn
        from synthgrad_lab.clocks.schedule import schedule
        from synthgrad_lab.reporting.figures import svg

        path = results / self.records / "clocks.svg"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, svg(drawn({method: schedule(clocks(method)) for method in ("bprop", "dni")})))
        return [path]


EXPERIMENTS: dict[str, type[Experiment]] = {"clocks": TwoClocks}
