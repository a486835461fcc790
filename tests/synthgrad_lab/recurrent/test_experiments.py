"""Which runs make the recurrent tables, and what the tables say of them."""

from dataclasses import asdict

import pytest

from synthgrad_lab.families import settings_from
from synthgrad_lab.recurrent.experiments import BUDGETS, Budget, cells
from synthgrad_lab.recurrent.tables import chosen, table_of

SMALL = Budget(5, {"": (1e-4, 1e-3)}, {"add": 100, "copy": 50})


def row(name, settings, validation, **result):
    return {"cell": name, "recipe": settings.recipe, "seed": settings.seed, "validation": validation,
            "settings": asdict(settings), "steps": settings.steps, **result}  # fmt: skip


@pytest.fixture
def tried():
    """Each arm's first seed at both rates; the larger rate is better for DNI, the smaller for the others."""
    return [
        row(name, s, (s.optimizer.lr < 5e-4) == (s.method == "dni"), cross_entropy=0.5, longest=3, sequences=6400)
        for name, s in cells(SMALL).items()
    ]


def test_first_every_rate_with_one_seed():
    found = cells(SMALL)
    assert {s.seed for s in found.values()} == {0}
    arms = {name.rsplit("--lr", 1)[0] for name in found}
    frozen = {name for name in arms if "read-out only" in name}  # whose core stands still at any rate
    assert len(found) == 2 * len(arms) - len(frozen)
    assert {s.recipe for s in found.values()} == {"add", "copy"}
    assert {(s.T, s.steps) for s in found.values() if s.recipe == "add"} == {(5, 100), (3, 166), (15, 33)}
    assert {(s.T, s.steps) for s in found.values() if s.recipe == "copy"} == {
        *((T, 50) for T in (3, 4, 5)),
        (64, 10),
    }


def test_then_the_other_seeds_at_each_arms_best_rate(tried):
    found = cells(SMALL, records=tried)
    assert {s.seed for s in found.values() if s.recipe == "add"} == {1, 2, 3, 4}
    assert {s.seed for s in found.values() if s.recipe == "copy"} == {1, 2}
    add = {(s.method, s.optimizer.lr) for s in found.values() if s.recipe == "add"}
    assert ("dni", 1e-3) in add
    assert ("bptt", 1e-4) in add
    assert len(add) == len({method for method, _ in add})
    copy = {(s.method, s.optimizer.lr) for s in found.values() if s.recipe == "copy"}  # where more is better
    assert copy == {("dni", 1e-4), *((method, 1e-3) for method in ("bptt", "local", "dni-aux", "cdni"))}


def test_an_arm_without_records_waits(tried):
    some = [r for r in tried if r["settings"]["method"] == "bptt"]
    assert {s.method for s in cells(SMALL, records=some).values()} == {"bptt"}


def test_only_the_tasks_asked_for_and_texts_only_with_a_text():
    assert {s.recipe for s in cells(BUDGETS["standard"], tasks=["delay"]).values()} == {"delay"}
    assert "char-lm" not in {s.recipe for s in cells(BUDGETS["standard"]).values()}
    with_text = cells(BUDGETS["standard"], "FILE", ["char-lm"])
    assert {s.task.text for s in with_text.values()} == {"FILE"}


def test_only_the_standard_budget_has_the_arm_with_a_length_of_its_own():
    long = {
        budget: [s.steps for name, s in cells(BUDGETS[budget]).items() if ", long" in name] for budget in BUDGETS
    }
    assert long == {"quick": [], "standard": [60_000, 60_000], "paper": []}


def test_cells_come_back_from_their_records():
    for s in cells(BUDGETS["quick"]).values():
        assert settings_from(asdict(s)) == s


def test_a_rate_is_chosen_on_the_seeds_that_all_rates_have(tried):
    arm = [r for r in tried if r["cell"].startswith("add--rnn, T=5, BPTT--")]
    best = chosen(arm, "add")
    assert [r["settings"]["optimizer"]["lr"] for r in best] == [1e-4]
    more = [{**best[0], "seed": seed, "validation": 9.0} for seed in (1, 2)]  # bad luck later changes nothing
    assert {r["settings"]["optimizer"]["lr"] for r in chosen([*arm, *more], "add")} == {1e-4}
    assert len(chosen([*arm, *more], "add")) == 3


def test_of_equal_rates_the_one_with_other_seeds_then_the_lower_is_chosen(tried):
    arm = [{**r, "validation": 9} for r in tried if r["cell"].startswith("copy--lstm, T=3, BPTT--")]
    assert {r["settings"]["optimizer"]["lr"] for r in chosen(arm, "copy")} == {1e-4}
    assert {r["settings"]["optimizer"]["lr"] for r in chosen(arm[::-1], "copy")} == {1e-4}
    begun = [*arm, *({**r, "seed": 1} for r in arm if r["settings"]["optimizer"]["lr"] == 1e-3)]
    assert {r["settings"]["optimizer"]["lr"] for r in chosen(begun, "copy")} == {1e-3}
    assert {s.optimizer.lr for s in cells(SMALL, tasks=["copy"], records=begun).values()} == {1e-3}


def test_the_table_has_an_arm_a_line(tried):
    rows = {r["arm"]: r for r in table_of("add")(tried)}
    assert rows["rnn, T=5, DNI"]["learning rate"] == "0.001"
    assert rows["rnn, T=5, BPTT"]["learning rate"] == "0.0001"
    assert {name: r["rates tried"] for name, r in rows.items()} == {
        name: "1" if "read-out only" in name else "2" for name in rows
    }


def test_copys_table_has_the_sequences_and_the_paper_beside_it(tried):
    rows = {r["arm"]: r for r in table_of("copy")(tried)}
    assert {name: r["paper"] for name, r in rows.items() if "T=3" in name} == {
        "lstm, T=3, BPTT": "8",
        "lstm, T=3, DNI": "14",
        "lstm, T=3, DNI + Aux": "17",
        "lstm, T=3, cDNI": "",
        "lstm, T=3, Local loss": "",
    }
    assert {(r["longest N"], r["sequences"]) for r in rows.values()} == {("3", "6,400")}
