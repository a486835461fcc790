"""Sparse updates: the error when each layer is updated only now and then (the paper's Fig. 7)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from synthgrad_lab.feedforward.recipes import mnist_fcn
from synthgrad_lab.feedforward.settings import Chance, Method, version_today
from synthgrad_lab.running.experiment import Experiment, Planned
from synthgrad_lab.running.gather import records
from synthgrad_lab.running.jsonl import Row
from synthgrad_lab.running.ranges import Count
from synthgrad_lab.running.settings import vary
from synthgrad_lab.running.versions import counted, split

log = logging.getLogger(__name__)

PANELS: dict[tuple[Method, str], str] = {
    ("dni", "update"): "update-unlocked",
    ("dni", "complete"): "completely unlocked",
    ("cdni", "update"): "update-unlocked",
    ("cdni", "complete"): "completely unlocked",
}


@dataclass(frozen=True)
class Sparse(Experiment):
    """Update each layer with a probability only: errors and a figure, with and without labels."""

    values: tuple[Chance, ...] = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
    """Probabilities of an update."""
    steps: tuple[Count, ...] = (600, 3000)
    """Lengths of the runs."""
    seeds: Count = 1
    """Runs of each probability and length."""

    name = "sparse"
    records = "feedforward"

    def runs(self, gathered: Sequence[Row] = ()) -> Iterator[Planned]:
        """With and without labels, update-unlocked and completely unlocked: every length and probability."""
        for steps in self.steps:
            for method, unlock in PANELS:
                for p in sorted(self.values, reverse=True):
                    for seed in range(self.seeds):
                        changes = {"unlock": unlock, "p_update": p, "steps": steps, "seed": seed}
                        settings = vary(mnist_fcn(method), {**changes, "run.eval_every": max(1, steps // 3)})
                        yield Planned({"variant": f"{method}-{unlock}-p{p:g}-{steps}"}, settings)

    def finish(self, out: Path, results: Path) -> list[Path]:
        """Draw the figure of the gathered records, beside them."""
        return [draw(results / self.records / f"{self.name}.jsonl")]


def draw(file: Path) -> Path:
    """Draw the figure of gathered records, beside them."""
    from synthgrad.checkpoint import write_atomically
    from synthgrad_lab.feedforward.figures import sparse
    from synthgrad_lab.reporting.figures import svg
    from synthgrad_lab.reporting.statistics import newest

    rows = newest(records(file))
    if older := split(rows, version_today)[1]:
        log.info("the figure has records of another version of their recipe: %s", counted(older, version_today))
    path = file.with_suffix(".svg")
    write_atomically(path, svg(sparse(rows, PANELS)))
    return path
