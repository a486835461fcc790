"""The paper's section 3.2 and more: recurrent tasks, every method at the same chunks and rates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from synthgrad_lab.recurrent.recipes import RECIPES
from synthgrad_lab.recurrent.settings import LABELS, Method, Settings
from synthgrad_lab.running.experiment import Experiment, Planned
from synthgrad_lab.running.jsonl import Row
from synthgrad_lab.running.settings import vary
from synthgrad_lab.running.versions import recorded_version


class Budget(NamedTuple):
    """Size of the experiment."""

    seeds: int
    """Seeds of add and delay; the other tasks have at most 3."""
    rates: dict[str, tuple[float, ...]]
    """Learning rates of the core by recipe (``""``: of the other recipes). Every method runs at each of them with the
    first seed, and with the other seeds at the rate that was best on validation data."""
    steps: dict[str, int]
    """Updates by recipe; of add and char-lm with T = 5, with another T as many as see the same data."""


BUDGETS = {
    "quick": Budget(
        1, {"": (1e-3,), "delay": (3e-5, 1e-4)}, {"add": 4000, "delay": 4000, "copy": 3000, "char-lm": 1500}
    ),
    "standard": Budget(
        5,
        {"": (1e-3, 3e-3), "add": (3e-4, 1e-3, 3e-3), "delay": (3e-5, 1e-4, 3e-4)},
        {"add": 20_000, "delay": 20_000, "copy": 20_000, "repeat-copy": 20_000, "char-lm": 16_000},
    ),
    "paper": Budget(3, {"": (7e-5,)}, {"copy": 2_000_000, "repeat-copy": 2_000_000, "char-lm": 500_000}),
}

COMPARED: tuple[Method, ...] = ("bptt", "dni", "dni-aux")
EPISODIC: tuple[Method, ...] = ("bptt", "local-loss", "dni", "dni-aux", "cdni")
WHOLE = 64
"""Steps of a chunk that holds a whole episode of ``copy``, so that nothing is truncated. Its update counts for five
with T = 5, which see as many episodes."""


class Arm(NamedTuple):
    """One of the variants that a task compares: its name in tables, its method, its changes of the settings."""

    task: str
    name: str
    method: Method
    changes: dict[str, Any]


@dataclass(frozen=True)
class Recurrent(Experiment):
    """Recurrent tasks in chunks of T steps: every method at the same updates and data, each at its best rate."""

    budget: Literal["quick", "standard", "paper"] = "standard"
    """Size of the experiment: minutes; hours, as in the documents; or the paper's."""
    text: str | None = None
    """Penn Treebank's folder, or any text file; without it char-lm is left out."""
    tasks: tuple[Literal["add", "delay", "copy", "repeat-copy", "char-lm"], ...] = ()
    """Run these tasks only."""

    name = "recurrent"
    records = "recurrent"

    @property
    def place(self) -> str:
        """Folder of the runs, below ``--out``."""
        return f"recurrent-{self.budget}"

    @property
    def documented(self) -> bool:
        """Whether the documents report these records."""
        return self.budget == "standard"

    def runs(self, gathered: Sequence[Row]) -> Iterator[Planned]:
        """Every rate with the first seed; other seeds at an arm's best rate, once its first seed is gathered."""
        from synthgrad_lab.recurrent.measures import best_rate
        from synthgrad_lab.running.gather import holds

        budget = BUDGETS[self.budget]
        rows = {
            row["run"]: row
            for row in gathered
            if "arm" in row and recorded_version(row) == Settings.version_for(row["settings"])
        }
        ready = []
        for arm in filter(self._asked, arms()):
            rates = budget.rates.get(arm.task, budget.rates[""])
            if arm.method == "frozen":
                rates = rates[:1]  # at any rate a frozen core stands still
            first = [self._planned(arm, rate, 0) for rate in rates]
            yield from first
            if all(holds(rows.get(p.name), p.settings) for p in first):
                ready.append(arm)
        for seed in range(1, budget.seeds):  # all arms once before any arm twice
            for arm in ready:
                if seed <= 2 or arm.task in ("add", "delay"):  # whose runs take little time
                    tried = [row for row in rows.values() if (row["task"], row["arm"]) == arm[:2]]
                    yield self._planned(arm, best_rate(tried, arm.task)[0]["settings"]["optimizer"]["lr"], seed)

    def _asked(self, arm: Arm) -> bool:
        return (
            arm.task in BUDGETS[self.budget].steps
            and arm.task in (self.tasks or RECIPES)
            and not (arm.task == "char-lm" and self.text is None)
            and (self.budget == "standard" or "steps" not in arm.changes)  # arms with a length of their own
        )

    def _planned(self, arm: Arm, rate: float, seed: int) -> Planned:
        steps = BUDGETS[self.budget].steps[arm.task]
        changes = {"steps": steps, **arm.changes, "optimizer.lr": rate, "seed": seed}
        s = vary(RECIPES[arm.task](arm.method), changes)
        if arm.task in ("add", "char-lm"):  # whose arms see the same data, whatever their T
            s = vary(s, {"steps": s.steps * 5 // s.T})
        if s.T == WHOLE:
            s = vary(s, {"steps": s.steps // 5})
        if arm.task == "char-lm":
            s = vary(s, {"task.text": self.text})
        # The paper's sizes: an LSTM, and M with one hidden layer as wide (recalled); its scale is the recipes' own.
        if self.budget == "paper":
            width = 1024 if arm.task == "char-lm" else 256
            sizes = {"cell": "lstm", "width": width, "model.hidden": width, "batch": 256}
            s = vary(s, {**sizes, "optimizer.decay": "none"})
        return Planned({"task": arm.task, "arm": arm.name, "rate": f"lr{rate:g}"}, s, arm.task)

    def finish(self, out: Path, results: Path) -> list[Path]:
        """Write a page with a table per task."""
        from synthgrad_lab.recurrent.tables import TABLES
        from synthgrad_lab.reporting import documents

        tables = {
            name: replace(table, today=lambda row: Settings.version_for(row["settings"]))
            for name, table in TABLES.items()
            if name in RECIPES and (results / f"{table.records}.jsonl").exists()
        }
        text = "".join(f"\n## {name}\n\n<!-- table: {name} older -->\n<!-- end -->\n" for name in tables)
        return [documents.write(out / "recurrent.md", PAGE.format(budget=self.budget) + text, tables, results)]


def arms() -> Iterator[Arm]:
    """All arms of all tasks."""
    for cell in ("rnn", "gru", "lstm"):
        yield Arm("add", f"{cell}, T=5, read-out only", "frozen", {"cell": cell})
        for method in COMPARED[:2]:
            yield Arm("add", f"{cell}, T=5, {LABELS[method]}", method, {"cell": cell})
    yield Arm("add", "rnn, T=3, BPTT", "bptt", {"T": 3})
    yield Arm("add", "rnn, T=3, DNI", "dni", {"T": 3})
    yield Arm("add", "rnn, T=15, BPTT", "bptt", {"T": 15})
    yield Arm("add", "rnn, T=5, DNI + Aux", "dni-aux", {})
    yield Arm("add", "rnn, T=5, DNI, copy of M", "dni", {"model.target_every": 10})
    # A fast read-out harms the critic.
    critic = {"model.form": "critic", "model.lr": 3e-3, "optimizer.read_out_lr": None}
    yield Arm("add", "rnn, T=5, DNI, critic", "dni", critic)
    yield Arm("add", "rnn, T=5, BP(λ)", "bp-lambda", {})
    for T in (2, 5):
        for method in COMPARED[:2]:
            yield Arm("delay", f"rnn, T={T}, {LABELS[method]}", method, {"T": T})
        yield Arm("delay", f"rnn, T={T}, DNI, scale 0.1", "dni", {"T": T, "model.scale": 0.1})
    for recipe in ("copy", "repeat-copy"):
        for T in (3, 4, 5):
            for method in EPISODIC:
                yield Arm(recipe, f"lstm, T={T}, {LABELS[method]}", method, {"T": T})
    yield Arm("copy", f"lstm, T={WHOLE}, BPTT", "bptt", {"T": WHOLE, "optimizer.clip": 0.015})
    yield Arm("copy", "lstm, T=5, cDNI, long", "cdni", {"steps": 60_000, "optimizer.decay": "cosine"})
    for T, compared in ((5, COMPARED), (8, COMPARED[:2]), (20, COMPARED[:1])):
        for method in compared:
            yield Arm("char-lm", f"lstm, T={T}, {LABELS[method]}", method, {"T": T})


PAGE = """# Recurrent networks in chunks of T steps (budget: {budget})

Medians over seeds; every method at the same updates and data, each at the learning rate that is best for it on
validation data, of the same grid. *paper*: Jaderberg et al. 2017, at its own sizes and lengths.
"""
EXPERIMENTS: dict[str, type[Experiment]] = {"recurrent": Recurrent}
