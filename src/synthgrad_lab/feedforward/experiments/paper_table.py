"""The paper's section 3.1: its table of errors, and variants: depth, sparse updates, complete unlock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from synthgrad_lab.feedforward import paper
from synthgrad_lab.feedforward.budgets import BUDGETS, Budget, Name
from synthgrad_lab.feedforward.settings import MAIN, METHODS, Settings
from synthgrad_lab.running.experiment import Experiment, Planned
from synthgrad_lab.running.jsonl import Row
from synthgrad_lab.running.settings import vary


@dataclass(frozen=True)
class PaperTable(Experiment):
    """Reproduce the paper's table of feed-forward errors: every layer decoupled, on MNIST and CIFAR-10."""

    budget: Name = "standard"
    """Size of the experiment. The documents report the standard one; the others write a page of their own."""
    cifar_dir: str | None = None
    """Folder with CIFAR-10's files; without it the cache, else a download."""

    name = "feedforward"
    records = "feedforward"

    @property
    def place(self) -> str:
        """Folder of the runs, below ``--out``."""
        return f"{self.name}-{self.budget}"

    @property
    def documented(self) -> bool:
        """Whether the documents report these records."""
        return self.budget == "standard"

    def runs(self, gathered: Sequence[Row] = ()) -> Iterator[Planned]:
        """The table's runs, then the variants'; all with the first seed before any with the second."""
        budget = BUDGETS[self.budget]
        table, variants = table_runs(budget), variant_runs(budget)
        for seed in range(budget.seeds):
            for records, found in (("paper-table", table), ("variants", variants)):
                for variant, s in found.items():
                    if seed == 0 or not variant.endswith(ONCE):
                        data_dir = self.cifar_dir if s.data == "cifar10" else None
                        yield Planned({"variant": variant}, replace(s, seed=seed, data_dir=data_dir), records)

    def finish(self, out: Path, results: Path) -> list[Path]:
        """Write a page with every error beside the paper's."""
        from synthgrad_lab.feedforward.tables import write_page

        return [write_page(self.budget, out / "feedforward.md", results)]


ONCE = ("-long", "-fp32")
"""Endings of variants that run with one seed."""


def table_runs(budget: Budget) -> dict[str, Settings]:
    """Every network of the paper's table, with every method at 4 layers and the main ones at other depths."""
    return {
        f"{recipe}-{layers}x-{method}": replace(budget.settings(recipe, method), layers=layers)
        for recipe, depths in paper.TABLE.items()
        for layers in depths
        for method in (METHODS if layers == 4 else MAIN)
    }


def variant_runs(budget: Budget) -> dict[str, Settings]:
    """21 layers; fp32; updates with probability 1/20 in 20 times the steps; complete unlock; long DNI."""
    found: dict[str, Settings] = {}
    for method in ("bprop", "local-loss", "cdni", "critic"):
        found[f"mnist-fcn-21x-{method}"] = replace(budget.settings("mnist-fcn", method), layers=21)
    for method in ("bprop", "critic"):
        settings = budget.settings("cifar-cnn", method)
        found[f"cifar-cnn-4x-{method}-fp32"] = vary(settings, {"run.precision": "fp32"})
    cdni, dni = (budget.settings("mnist-fcn", method) for method in ("cdni", "dni"))
    found["mnist-fcn-4x-cdni-p0.05"] = budget.lengthened(replace(cdni, p_update=0.05), 60_000, points=12)
    for s, steps in ((cdni, 3_000), (dni, 12_000)):  # with the label, more steps made it worse (docs/log.md)
        found[f"mnist-fcn-4x-{s.method}-complete"] = budget.lengthened(replace(s, unlock="complete"), steps)
    if not budget.paper:  # the paper's DNI is long enough
        found["mnist-fcn-4x-dni-long"] = budget.lengthened(dni, 50_000, points=20)
    return found
