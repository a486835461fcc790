"""The experiments' runs, compared with the committed records; the documents' tables of them."""

import subprocess
import sys
from pathlib import Path

import pytest

from synthgrad_lab.feedforward.experiments import EXPERIMENTS
from synthgrad_lab.running.gather import holds, records

RESULTS = Path(__file__).parents[4] / "results"
LACKING = {"every-layer": 0, "feedforward": 71 + 16, "stability": 7, "sparse": 28}
"""Runs of each experiment that have no record yet."""


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_runs_have_the_names_labels_and_settings_of_their_records(name):
    experiment = EXPERIMENTS[name]()
    planned = {p.name: p for p in experiment.runs([])}
    files = experiment.files(RESULTS, ())
    rows = {row["run"]: (file, row) for file in files for row in records(file)}
    assert rows.keys() <= planned.keys()
    assert len(planned) - len(rows) == LACKING[name]
    for run, (file, row) in rows.items():
        p = planned[run]
        assert experiment.file(RESULTS, p) == file
        assert {key: row[key] for key in p.labels} == p.labels
        assert holds(row, p.settings), run
    for file in files:  # gathering more records would not move those that are there
        order = [run for run, p in planned.items() if run in rows and experiment.file(RESULTS, p) == file]
        assert [row["run"] for row in records(file)] == order


def test_experiments_and_benches_are_imported_without_slow_packages():
    code = "import sys, synthgrad_lab.feedforward.experiments, synthgrad_lab.feedforward.bench; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"matplotlib", "pandas", "torch"} & {*loaded}
    assert not [name for name in loaded if name.startswith("synthgrad_lab.data")]
