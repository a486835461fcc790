"""The runs of the multi-network system, its table, and the benchmark of its memory."""

from pathlib import Path

from synthgrad_lab.clocks.bench import Clocks
from synthgrad_lab.clocks.experiments import TwoClocks
from synthgrad_lab.clocks.settings import METHODS
from synthgrad_lab.clocks.tables import TABLES
from synthgrad_lab.running.gather import records

RESULTS = Path(__file__).parents[3] / "results"


def test_runs_see_equally_many_digits():
    planned = list(TwoClocks().runs([]))
    seen = [p.settings.steps * p.settings.T**2 * p.settings.batch for p in planned]
    assert min(seen) > 0.99 * max(seen)
    assert [p.name for p in planned][:4] == [f"T4-{method}--seed0" for method in METHODS]


def test_planned_runs_have_the_names_of_the_committed_records():
    rows = {row["run"]: row for row in records(RESULTS / "clocks" / "clocks.jsonl")}
    planned = {p.name: p for p in TwoClocks().runs([])}
    assert planned.keys() - rows.keys() == {f"T{T}-dni--seed{seed}" for T in (6, 8) for seed in (1, 2)}
    assert rows.keys() <= planned.keys()
    assert all({"variant": row["variant"]} == planned[name].labels for name, row in rows.items())


def test_the_experiment_draws_two_schedules(tmp_path):
    (path,) = TwoClocks().finish(tmp_path, tmp_path)
    assert path == tmp_path / "clocks" / "clocks.svg"
    assert path.read_text().startswith("<?xml")


def test_the_table_finds_where_bprops_end_was_reached():
    def record(method, seed, curve):
        ends = {"odd_error": curve[-1][1], "threes_error": 30.0, "samples": 300, "updates_a": 12, "updates_b": 6}
        settings = {"T": 4, "method": method, "seed": seed}
        return {**settings, "curve": curve, **ends, "settings": settings}

    rows = [
        record("bprop", 0, [[100, 50.0, 1.0], [200, 30.0, 1.0], [300, 9.0, 1.0]]),
        record("bprop", 1, [[100, 50.0, 1.0], [200, 10.0, 1.0], [300, 11.0, 1.0]]),
        record("dni", 0, [[100, 10.0, 1.0], [200, 8.0, 1.0], [300, 7.0, 1.0]]),
        record("dni", 1, [[100, 20.0, 1.0], [200, 10.0, 1.0], [300, 12.0, 1.0]]),
        record("cut", 0, [[100, 20.0, 1.0], [200, 19.0, 1.0], [300, 18.0, 1.0]]),
    ]
    lines = {line["method"]: line for line in TABLES["clocks"].make(rows)}
    assert lines["DNI"]["digits to Bprop's end"] == "150"
    assert lines["Bprop"]["digits to Bprop's end"] == "250"
    assert lines["Cut"]["digits to Bprop's end"] == "not reached"
    assert lines["DNI"]["A: odd miscounted %"] == "9.50 ± 3.54"
    assert lines["Cut"]["A: odd miscounted %"] == "18.00"


def test_memory_is_that_of_T_steps_and_not_of_all():
    rows, timelines = Clocks(lengths=(2, 4)).measure(lambda name, total: lambda done: None)
    memory = {(row["T"], row["method"]): row["memory_mb"] for row in rows}
    assert memory[4, "Bprop"] > 2.2 * memory[2, "Bprop"]
    assert memory[4, "DNI"] < 2 * memory[2, "DNI"]
    assert timelines == {}
