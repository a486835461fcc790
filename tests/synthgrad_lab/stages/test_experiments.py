"""The experiment about asynchrony: its runs are those of the committed records, and none is run twice."""

from pathlib import Path

import pytest

from synthgrad_lab.running.gather import records
from synthgrad_lab.running.settings import vary
from synthgrad_lab.stages import experiments, training
from synthgrad_lab.stages.experiments import Stages

RESULTS = Path(__file__).parents[3] / "results"


def test_the_committed_records_are_of_todays_runs():
    planned = {p.name: p for p in Stages().runs([])}
    rows = records(RESULTS / "stages" / "stages.jsonl")
    assert [row["run"] for row in rows] == list(planned)
    for row in rows:
        assert {name: row[name] for name in ("method", "messages")} == planned[row["run"]].labels
    assert Stages().lacking(RESULTS, []) == []


@pytest.fixture
def small(monkeypatch):
    """The experiment with tiny runs."""
    changes = {"steps": 6, "width": 32, "batch": 64, "model.hidden": 8}
    recipe = experiments.mnist_fcn
    monkeypatch.setattr(experiments, "mnist_fcn", lambda method: vary(recipe(method), changes))
    return Stages()


def test_runs_that_the_records_hold_are_not_run_again(small, tmp_path, monkeypatch):
    only = ["cdni--in one process--seed0", "cdni--20% lost"]
    (file,) = small.gather(tmp_path / "runs", tmp_path / "results", 1, only)
    rows = {row["run"]: row for row in records(file)}
    assert {row["messages"]: row["launch"]["drop"] for row in rows.values()} == {
        "in one process": 0,
        "20% lost": 0.2,
    }
    assert "cuts" not in rows["cdni--20% lost--seed0"]["launch"]
    assert small.lacking(tmp_path / "results", ["cdni"]) == [
        p.name for p in small.runs([]) if p.labels["method"] == "cdni" and p.name not in rows
    ]

    run = training.run
    monkeypatch.setattr(training, "run", lambda *arguments: pytest.fail("it was run again"))
    assert small.gather(tmp_path / "runs", tmp_path / "results", 1, only) == [file]
    file.unlink()  # the run folders still hold the results
    small.gather(tmp_path / "runs", tmp_path / "results", 1, only)
    assert {row["run"]: row["test_error"] for row in records(file)} == {n: r["test_error"] for n, r in rows.items()}

    # A changed launch makes its record and its folder those of another run.
    monkeypatch.setattr(training, "run", run)
    monkeypatch.setitem(experiments.FAULTY, "20% lost", {**experiments.FAULTY["20% lost"], "drop": 0.3})
    assert small.lacking(tmp_path / "results", only) == ["cdni--20% lost--seed0"]
    small.gather(tmp_path / "runs", tmp_path / "results", 1, only)
    assert records(file)[1]["launch"]["drop"] == 0.3
    assert len(list((tmp_path / "runs" / "stages").glob("cdni--20%-lost--seed0.*/record.jsonl"))) == 1
