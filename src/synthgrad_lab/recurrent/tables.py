"""Tables of the recurrent experiment, computed from gathered records."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from synthgrad_lab.reporting.statistics import grouped, one_experiment
from synthgrad_lab.running.jsonl import Row

MEASURES: dict[str, tuple[str, str, bool]] = {
    "add": ("cross_entropy", "cross-entropy, nats (floor 0.4545)", False),
    "delay": ("longest", "longest delay", True),
    "copy": ("longest", "longest N", True),
    "repeat-copy": ("episode_length", "longest episode", True),
    "char-lm": ("test_bits_per_character", "test bits per character", False),
    "seq-mnist": ("test_error", "test error %", False),
    "line-drawing": ("mse", "squared error", False),
}
"""By recipe: the result's key, what it is, and whether more is better."""
PAPER = {
    "copy": {
        "BPTT": {2: 7, 3: 8, 4: 10, 5: 8},
        "DNI": {2: 16, 3: 14, 4: 18, 5: 18},
        "DNI + Aux": {2: 16, 3: 17, 4: 19, 5: 18},
    },
    "repeat-copy": {
        "BPTT": {2: 7, 3: 5, 4: 19, 5: 23},
        "DNI": {2: 39, 3: 33, 4: 39, 5: 59},
        "DNI + Aux": {2: 39, 3: 59, 4: 67, 5: 59},
    },
    "char-lm": {
        "BPTT": {2: 1.39, 3: 1.38, 4: 1.37, 5: 1.37, 8: 1.35, 20: 1.35, 40: 1.34},
        "DNI": {2: 1.37, 3: 1.36, 4: 1.35, 5: 1.35, 8: 1.34},
        "DNI + Aux": {2: 1.37, 3: 1.36, 4: 1.35, 5: 1.35, 8: 1.33},
    },
}
"""Jaderberg et al. 2017, the recurrent table, by T."""


def table_of(recipe: str) -> Callable[[list[Row]], list[dict[str, str]]]:
    """The table of a recipe."""

    def table(records: list[Row]) -> list[dict[str, str]]:
        rows = []
        for (arm,), runs in grouped([r for r in records if r["recipe"] == recipe], _arm).items():
            best = chosen(runs, recipe)
            rows.append(_row(recipe, arm, best, runs))
        return rows

    return table


def chosen(runs: list[Row], recipe: str) -> list[Row]:
    """The runs at the rate that is best on validation data, by the median over the seeds that all rates have.

    Of equal ones (lengths are whole numbers) the rate that other seeds have run at, then the lower one.
    """
    more = MEASURES[recipe][2]
    rates = grouped(runs, lambda r: (r["settings"]["optimizer"]["lr"],))
    common = set.intersection(*({r["seed"] for r in each} for each in rates.values()))

    def merit(each: list[Row]) -> tuple[float, int, float]:
        tried = one_experiment(each)
        value = statistics.median(r["validation"] for r in tried if r["seed"] in common or not common)
        return value if more else -value, len(each), -each[0]["settings"]["optimizer"]["lr"]

    return max(rates.values(), key=merit)


def _arm(r: Row) -> tuple[str]:
    return (r["cell"].split("--")[1],)


def _row(recipe: str, arm: str, best: list[Row], runs: list[Row]) -> dict[str, str]:
    key, shown, more = MEASURES[recipe]
    values = sorted(r[key] for r in best)
    form = "{:.0f}" if more else "{:.4f}"
    worst = values[0] if more else values[-1]
    row = {
        "arm": arm,
        "updates": f"{best[0]['updates']:,}",
        "learning rate": f"{best[0]['settings']['lr']:g}",
        "rates tried": str(len({r["settings"]["optimizer"]["lr"] for r in runs})),
        "seeds": str(len(best)),
        shown: form.format(statistics.median(values)),
        "worst seed": form.format(worst),
    }
    cell, T, method = (*arm.split(", "), "", "")[:3]
    if recipe.endswith("copy"):
        row["sequences"] = f"{statistics.median_low(r['sequences'] for r in best):,}"
    if cell == "lstm" and recipe in PAPER:
        row["paper"] = str(PAPER[recipe].get(method, {}).get(int(T.removeprefix("T=")), ""))
    return row
