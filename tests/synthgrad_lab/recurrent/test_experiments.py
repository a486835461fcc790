"""The runs that make the recurrent tables, and these tables."""

from dataclasses import asdict
from pathlib import Path

import pytest

from synthgrad_lab.families import settings_from
from synthgrad_lab.recurrent.experiments import BUDGETS, Budget, Recurrent
from synthgrad_lab.recurrent.measures import best_rate
from synthgrad_lab.recurrent.tables import TABLES
from synthgrad_lab.running.gather import records
from synthgrad_lab.running.jsonl import lines_to

RESULTS = Path(__file__).parents[3] / "results"
SMALL = Budget(5, {"": (1e-4, 1e-3)}, {"add": 100, "copy": 50})


@pytest.fixture
def small(monkeypatch):
    """An experiment at a small budget."""
    monkeypatch.setitem(BUDGETS, "quick", SMALL)
    return Recurrent(budget="quick")


def row(planned, validation, **result):
    s = planned.settings
    return {"run": planned.name, **planned.labels, "seed": s.seed, "validation": validation,
            "settings": asdict(s), **result}  # fmt: skip


@pytest.fixture
def tried(small):
    """Each arm's first seed at both rates; the larger rate is better for DNI, the smaller for the others."""
    return [
        row(p, (p.settings.optimizer.lr < 5e-4) == (p.settings.method == "dni"),
            cross_entropy=0.5, longest=3, sequences=6400)
        for p in small.runs([])
    ]  # fmt: skip


def settings(experiment, gathered=()):
    return [planned.settings for planned in experiment.runs(gathered)]


def further(experiment, gathered):
    """The settings of all seeds but the first."""
    return [s for s in settings(experiment, gathered) if s.seed]


def test_first_every_rate_with_one_seed(small):
    found = list(small.runs([]))
    assert {p.settings.seed for p in found} == {0}
    arms = {(p.labels["task"], p.labels["arm"]) for p in found}
    frozen = {arm for arm in arms if "read-out only" in arm[1]}  # whose core stands still at any rate
    assert len(found) == 2 * len(arms) - len(frozen)
    assert {p.settings.recipe for p in found} == {"add", "copy"}
    sizes = {
        task: {(p.settings.T, p.settings.steps) for p in found if p.records == task} for task in ("add", "copy")
    }
    assert sizes["add"] == {(5, 100), (3, 166), (15, 33)}
    assert sizes["copy"] == {*((T, 50) for T in (3, 4, 5)), (64, 10)}


def test_then_the_other_seeds_at_each_arms_best_rate(small, tried):
    found = further(small, tried)
    assert {s.seed for s in found if s.recipe == "add"} == {1, 2, 3, 4}
    assert {s.seed for s in found if s.recipe == "copy"} == {1, 2}
    add = {(s.method, s.optimizer.lr) for s in found if s.recipe == "add"}
    assert ("dni", 1e-3) in add
    assert ("bptt", 1e-4) in add
    assert len(add) == len({method for method, _ in add})
    copy = {(s.method, s.optimizer.lr) for s in found if s.recipe == "copy"}  # where more is better
    assert copy == {("dni", 1e-4), *((method, 1e-3) for method in ("bptt", "local-loss", "dni-aux", "cdni"))}


def test_an_arm_waits_until_all_its_rates_have_records(small, tried):
    some = [r for r in tried if r["settings"]["method"] == "bptt"]
    assert {s.method for s in further(small, some)} == {"bptt"}
    waiting = ("copy", "lstm, T=3, BPTT", "lr0.001")
    without = [r for r in some if (r["task"], r["arm"], r["rate"]) != waiting]
    assert len(without) == len(some) - 1
    arms = [
        {(p.labels["task"], p.labels["arm"]) for p in small.runs(rows) if p.settings.seed}
        for rows in (some, without)
    ]
    assert arms[0] - arms[1] == {waiting[:2]}


def test_only_the_tasks_asked_for_and_texts_only_with_a_text():
    assert {s.recipe for s in settings(Recurrent(tasks=("delay",)))} == {"delay"}
    assert "char-lm" not in {s.recipe for s in settings(Recurrent())}
    assert {s.task.text for s in settings(Recurrent(text="FILE", tasks=("char-lm",)))} == {"FILE"}


def test_only_the_standard_budget_has_the_arm_with_a_length_of_its_own():
    long = {
        budget: [p.settings.steps for p in Recurrent(budget=budget).runs([]) if ", long" in p.name]
        for budget in BUDGETS
    }
    assert long == {"quick": [], "standard": [60_000, 60_000], "paper": []}


def test_settings_come_back_from_their_records():
    for s in settings(Recurrent(budget="quick")):
        assert settings_from(asdict(s)) == s


@pytest.mark.parametrize("task", ["add", "delay", "copy", "repeat-copy", "char-lm"])
def test_planned_runs_have_the_names_of_the_committed_records(task):
    rows = records(RESULTS / "recurrent" / f"{task}.jsonl")
    planned = {p.name: p for p in Recurrent(text="FILE", tasks=(task,)).runs(rows)}
    for r in rows:
        if r["run"] in planned:
            assert {key: r[key] for key in ("task", "arm", "rate")} == planned[r["run"]].labels
            assert planned[r["run"]].records == task
    earlier = {
        f"delay--rnn, T=5, DNI, scale 0.1--lr0.0001--seed{k}" for k in range(1, 5)
    }  # no longer the best rate
    assert {r["run"] for r in rows} - planned.keys() == (earlier if task == "delay" else set())


def arm(tried, task, name):
    return [r for r in tried if (r["task"], r["arm"]) == (task, name)]


def rates(rows):
    return {r["settings"]["optimizer"]["lr"] for r in rows}


def test_a_rate_is_chosen_on_the_seeds_that_all_rates_have(tried):
    runs = arm(tried, "add", "rnn, T=5, BPTT")
    best = best_rate(runs, "add")
    assert [r["settings"]["optimizer"]["lr"] for r in best] == [1e-4]
    more = [{**best[0], "seed": seed, "validation": 9.0} for seed in (1, 2)]  # later bad luck changes nothing
    assert rates(best_rate([*runs, *more], "add")) == {1e-4}
    assert len(best_rate([*runs, *more], "add")) == 3


def test_of_equal_rates_the_one_with_more_seeds_then_the_lower_is_chosen(small, tried):
    runs = [{**r, "validation": 9} for r in arm(tried, "copy", "lstm, T=3, BPTT")]
    assert rates(best_rate(runs, "copy")) == {1e-4}
    assert rates(best_rate(runs[::-1], "copy")) == {1e-4}
    begun = [*runs, *({**r, "seed": 1, "run": "more"} for r in runs if rates([r]) == {1e-3})]
    assert rates(best_rate(begun, "copy")) == {1e-3}
    assert {s.optimizer.lr for s in further(small, begun)} == {1e-3}


def test_the_table_has_a_row_per_arm(tried):
    rows = {r["arm"]: r for r in TABLES["add"].make([r for r in tried if r["task"] == "add"])}
    assert rows["rnn, T=5, DNI"]["learning rate"] == "0.001"
    assert rows["rnn, T=5, BPTT"]["learning rate"] == "0.0001"
    assert {name: r["rates tried"] for name, r in rows.items()} == {
        name: "1" if "read-out only" in name else "2" for name in rows
    }


def test_copys_table_has_the_sequences_and_the_paper_beside_it(tried):
    rows = {r["arm"]: r for r in TABLES["copy"].make([r for r in tried if r["task"] == "copy"])}
    assert {name: r["paper"] for name, r in rows.items() if "T=3" in name} == {
        "lstm, T=3, BPTT": "8",
        "lstm, T=3, DNI": "14",
        "lstm, T=3, DNI + Aux": "17",
        "lstm, T=3, cDNI": "",
        "lstm, T=3, Local loss": "",
    }
    assert {(r["longest N"], r["sequences"]) for r in rows.values()} == {("3", "6,400")}


def test_the_experiments_own_page_has_a_table_per_task(small, tried, tmp_path):
    for task in ("add", "copy"):
        lines_to(tmp_path / "recurrent" / f"{task}.jsonl", [r for r in tried if r["task"] == task])
    (page,) = small.finish(tmp_path / "out", tmp_path)
    text = page.read_text()
    assert page.name == "recurrent.md"
    assert "budget: quick" in text
    assert [line for line in text.splitlines() if line.startswith("## ")] == ["## add", "## copy"]
    assert "| lstm, T=3, BPTT | 50 | 0.001 |" in text
