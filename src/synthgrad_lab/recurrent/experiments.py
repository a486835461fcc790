"""The paper's section 3.2 and more: recurrent tasks, every method at the same chunks and rates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthgrad_lab.recurrent.recipes import RECIPES
from synthgrad_lab.recurrent.settings import LABELS, Method, Settings
from synthgrad_lab.recurrent.tables import chosen
from synthgrad_lab.reporting import documents as page
from synthgrad_lab.running.jsonl import Row, read_lines
from synthgrad_lab.running.settings import vary


@dataclass(frozen=True)
class Budget:
    """How much of everything."""

    seeds: int
    """Of add and delay; the other tasks have at most 3."""
    rates: dict[str, tuple[float, ...]]
    """Learning rates of the core by recipe (``""``: of the others), tried by every method alike with one seed; the
    others run at the rate that was best on validation data."""
    updates: dict[str, int]
    """By recipe; of add and char-lm with T = 5, and with another T as many as make the same number of steps."""
    paper: bool = False
    long: bool = False
    """With the arms that have a length of their own."""


BUDGETS = {
    "quick": Budget(
        1,
        {"": (1e-3,), "add": (1e-3,), "delay": (3e-5, 1e-4)},
        {"add": 4000, "delay": 4000, "copy": 3000, "char-lm": 1500},
    ),
    "standard": Budget(
        5,
        {"": (1e-3, 3e-3), "add": (3e-4, 1e-3, 3e-3), "delay": (3e-5, 1e-4, 3e-4)},
        {"add": 20_000, "delay": 20_000, "copy": 20_000, "repeat-copy": 20_000, "char-lm": 16_000},
        long=True,
    ),
    "paper": Budget(
        3, {"": (7e-5,)}, {"copy": 2_000_000, "repeat-copy": 2_000_000, "char-lm": 500_000}, paper=True
    ),
}

SHORT = ("add", "delay")
SAME_DATA = ("add", "char-lm")
"""Whose arms see equally much, whatever their T."""
COMPARED: tuple[Method, ...] = ("bptt", "dni", "dni-aux")
EPISODIC: tuple[Method, ...] = ("bptt", "local", "dni", "dni-aux", "cdni")
"""Where the targets to come are at hand."""
WHOLE = 64
"""Steps of a chunk that holds a whole episode of ``copy``: backprop that nothing truncates. Such an update sees
about as many episodes as five of T = 5, and counts for five."""
Arm = tuple[str, str, Method, dict[str, Any]]
"""Recipe, the arm's name in tables, method, what it changes."""


def cells(
    budget: Budget, text: str | None = None, tasks: Sequence[str] | None = None, records: Sequence[Row] = ()
) -> dict[str, Settings]:
    """The runs of a budget by name: arm, rate, seed.

    Args:
        budget: how much.
        text: Penn Treebank's folder, or any text; without it there is no char-lm.
        tasks: only these.
        records: of runs that have ended; without them every rate with the first seed, with them each arm's best
            rate with the other seeds, all arms once before any twice.
    """
    found = {}
    tried: dict[str, list[Row]] = {}
    for row in records:
        tried.setdefault(row["cell"].rsplit("--", 2)[0], []).append(row)
    for seed in range(1, budget.seeds) if records else (0,):
        for arm in arms():
            recipe, name, method, changes = arm
            key = f"{recipe}--{name}"
            if recipe not in (tasks or RECIPES) or recipe not in budget.updates or (records and key not in tried):
                continue
            if (seed > 2 and recipe not in SHORT) or (recipe == "char-lm" and text is None):
                continue
            if "updates" in changes and not budget.long:
                continue
            grid = budget.rates.get(recipe, budget.rates[""])
            if method == "frozen":
                grid = grid[:1]  # of a core that stands still
            for rate in grid if seed == 0 else (chosen(tried[key], recipe)[0]["settings"]["optimizer"]["lr"],):
                found[f"{key}--lr{rate:g}--seed{seed}"] = _settings(budget, arm, rate, seed, text)
    return found


def _settings(budget: Budget, arm: Arm, rate: float, seed: int, text: str | None) -> Settings:
    recipe, _, method, changes = arm
    s = vary(
        RECIPES[recipe](method),
        {**{"steps": budget.updates[recipe], **changes}, "optimizer.lr": rate, "seed": seed},
    )
    if recipe in SAME_DATA:
        s = vary(s, {"steps": s.steps * 5 // s.T})
    if s.T == WHOLE:
        s = vary(s, {"steps": s.steps // 5})
    if recipe == "char-lm":
        s = vary(s, {"task.text": text})
    return as_paper(s) if budget.paper else s


def arms() -> Iterator[Arm]:
    """What is compared."""
    for cell in ("rnn", "gru", "lstm"):
        common = {"cell": cell}
        yield "add", f"{cell}, T=5, read-out only", "frozen", common
        yield "add", f"{cell}, T=5, BPTT", "bptt", common
        yield "add", f"{cell}, T=5, DNI", "dni", common
    yield "add", "rnn, T=3, BPTT", "bptt", {"T": 3}
    yield "add", "rnn, T=3, DNI", "dni", {"T": 3}
    yield "add", "rnn, T=15, BPTT", "bptt", {"T": 15}
    yield "add", "rnn, T=5, DNI + Aux", "dni-aux", {}
    yield "add", "rnn, T=5, DNI, copy of M", "dni", {"model.target_every": 10}
    critic = {"model.form": "critic", "model.lr": 3e-3, "optimizer.read_out_lr": None}  # a fast one harms it
    yield "add", "rnn, T=5, DNI, critic", "dni", critic
    yield "add", "rnn, T=5, BP(λ)", "bp-lambda", {}
    for T in (2, 5):
        for method in COMPARED[:2]:
            yield "delay", f"rnn, T={T}, {LABELS[method]}", method, {"T": T}
        yield "delay", f"rnn, T={T}, DNI, scale 0.1", "dni", {"T": T, "model.scale": 0.1}
    for recipe in ("copy", "repeat-copy"):
        for T in (3, 4, 5):
            for method in EPISODIC:
                yield recipe, f"lstm, T={T}, {LABELS[method]}", method, {"T": T}
    yield "copy", f"lstm, T={WHOLE}, BPTT", "bptt", {"T": WHOLE, "optimizer.clip": 0.015}
    yield "copy", "lstm, T=5, cDNI, long", "cdni", {"steps": 60_000, "optimizer.decay": "cosine"}
    for T, compared in ((5, COMPARED), (8, COMPARED[:2]), (20, COMPARED[:1])):
        for method in compared:
            yield "char-lm", f"lstm, T={T}, {LABELS[method]}", method, {"T": T}


def as_paper(s: Settings) -> Settings:
    """The paper's sizes: LSTM, M with one hidden layer as wide (recalled); its 0.1 is the recipes' own."""
    units = 1024 if s.recipe == "char-lm" else 256
    return vary(s, {"cell": "lstm", "width": units, "model.hidden": units, "batch": 256, "optimizer.decay": "none"})


def write_page(name: str, runs: Path, results: Path) -> Path:
    """A page with a table per task, from the gathered records."""
    rows = read_lines(results / "recurrent.jsonl")
    recipes = [recipe for recipe in RECIPES if any(row["recipe"] == recipe for row in rows)]
    tables = "".join(f"\n## {recipe}\n\n<!-- table: {recipe} older -->\n<!-- end -->\n" for recipe in recipes)
    return page.write(runs / "recurrent.md", PAGE.format(name=name) + tables, results)


PAGE = """# Recurrent networks in chunks of T steps (budget: {name})

Medians over seeds; every method at the same updates and data, each at the learning rate that is best for it on
validation data, of the same grid. *paper*: Jaderberg et al. 2017, at its own sizes and lengths.
"""
