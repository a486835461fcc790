"""The paper's section 3.1: every table cell, sparse updates, complete unlock, depth; in three budgets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from synthgrad_lab.feedforward import paper
from synthgrad_lab.feedforward.recipes import RECIPES, paper_preset
from synthgrad_lab.feedforward.settings import METHODS, Method, Settings
from synthgrad_lab.feedforward.tables import MAIN
from synthgrad_lab.reporting import documents as page
from synthgrad_lab.running.jsonl import read_lines
from synthgrad_lab.running.settings import vary


@dataclass(frozen=True)
class Budget:
    """How much of the paper's scale is run.

    Attributes:
        seeds: runs per cell.
        changes: to each recipe's settings.
        share: of the steps of the extra cells (depth, sparse updates, complete unlock, long DNI).
        paper: the paper's own preset.
    """

    seeds: int
    changes: dict[str, dict[str, Any]]
    share: float = 1.0
    paper: bool = False


BUDGETS = {
    "quick": Budget(
        seeds=1,
        share=0.1,
        changes={
            "mnist-fcn": {"steps": 500},
            "mnist-cnn": {"width": 16, "model.hidden": 16, "epochs": 1},
            "cifar-fcn": {"width": 256, "epochs": 2},
            "cifar-cnn": {"width": 16, "model.hidden": 16, "epochs": 2},
        },
    ),
    "standard": Budget(
        seeds=3,
        changes={
            "mnist-fcn": {},
            "mnist-cnn": {"width": 32, "model.hidden": 32, "epochs": 2},
            "cifar-fcn": {"width": 256, "epochs": 5},
            "cifar-cnn": {"width": 32, "model.hidden": 32, "epochs": 10},
        },
    ),
    "paper": Budget(seeds=3, changes={recipe: {} for recipe in paper.TABLE}, paper=True),
}


def cells(budget: Budget, cifar_dir: str | None = None) -> dict[str, Settings]:
    """Every run of a budget, by name: recipe, layers, method, what is special, seed."""
    variants: dict[str, Settings] = {}
    for recipe, depths in paper.TABLE.items():
        for layers in depths:
            # The other baselines are run at one size of each network.
            for method in METHODS if layers == 4 else MAIN:
                settings = settings_of(budget, recipe, method)
                variants[f"{recipe}-{layers}x-{method}"] = replace(settings, layers=layers)
    variants |= _extra(budget)
    return {
        f"{name}-seed{seed}": replace(s, seed=seed, data_dir=cifar_dir if s.data == "cifar10" else None)
        for seed in range(budget.seeds)  # all cells once before any twice
        for name, s in variants.items()
        if seed == 0 or not name.endswith(("-long", "-fp32"))
    }


def settings_of(budget: Budget, recipe: str, method: Method) -> Settings:
    """A recipe's settings at a budget."""
    settings = RECIPES[recipe](method)
    if budget.paper:
        settings = paper_preset(settings)
    return _with(settings, **budget.changes[recipe])


def _with(settings: Settings, **changes: Any) -> Settings:
    return replace(settings, **({"epochs": None} if "steps" in changes else {}), **changes)


def _extra(budget: Budget) -> dict[str, Settings]:
    """21 layers; fp32; updates with a chance of 1/20 in 20 times the steps; complete unlock; long DNI."""
    found: dict[str, Settings] = {}
    for method in ("bprop", "local-loss", "cdni", "critic"):
        found[f"mnist-fcn-21x-{method}"] = replace(settings_of(budget, "mnist-fcn", method), layers=21)
    cdni, dni = (settings_of(budget, "mnist-fcn", method) for method in ("cdni", "dni"))
    for method in ("bprop", "critic"):
        settings = vary(settings_of(budget, "cifar-cnn", method), {"run.precision": "fp32"})
        found[f"cifar-cnn-4x-{method}-fp32"] = settings

    def lasting(s: Settings, steps: int, points: int | None = None) -> Settings:
        """So many steps at the budget's share, with so many points of the curve; the paper's preset has its own."""
        if budget.paper:
            return s
        n = round(steps * budget.share)
        return _with(s, steps=n, **({"run.eval_every": n // points} if points else {}))

    found["mnist-fcn-4x-cdni-p0.05"] = lasting(replace(cdni, p_update=0.05), 60_000, 12)
    for s, steps in ((cdni, 3_000), (dni, 12_000)):  # with the label, more steps made it worse (docs/log.md)
        found[f"mnist-fcn-4x-{s.method}-complete"] = lasting(replace(s, unlock="complete"), steps)
    if not budget.paper:  # whose DNI is long enough
        found["mnist-fcn-4x-dni-long"] = lasting(dni, 50_000, 20)
    return found


def write_page(name: str, runs: Path, results: Path) -> Path:
    """A page with every cell beside the paper's number, from the gathered records."""
    images = dict.fromkeys(row["images"] for row in read_lines(results / "feedforward.jsonl"))
    return page.write(runs / "feedforward.md", PAGE.format(name=name, images=", ".join(images)), results)


PAGE = """# Feed-forward networks, every layer decoupled (budget: {name})

Test error in percent, ± standard deviation over seeds; in brackets the paper's, after 500,000 steps of batch 256
at its own widths. Each row: equal epochs and updates for all methods. Images: {images}.

<!-- table: feedforward older -->
<!-- end -->

Baselines: local loss (a classifier per layer), stale gradients (of earlier batches), direct feedback alignment.

<!-- table: baselines older -->
<!-- end -->

Depth, sparse updates (p_update), complete unlock, long runs, precision:

<!-- table: variants older -->
<!-- end -->

## What it costs

Medians over seeds, on the deepest net. Seconds per step are the runs' own, whatever ran beside them;
`synthgrad bench methods` measures them interleaved.

<!-- table: costs older -->
<!-- end -->
"""
