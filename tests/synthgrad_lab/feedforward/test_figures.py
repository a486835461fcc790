"""The figures: their lines, titles and labels."""

from __future__ import annotations

import pytest

from synthgrad_lab.feedforward import figures
from synthgrad_lab.feedforward.settings import PAPER
from synthgrad_lab.reporting.figures import svg
from synthgrad_lab.reporting.runs import read
from tests.helpers.written import write


@pytest.fixture
def record(tmp_path):
    return lambda name, *values, **changes: write(tmp_path / name, *values, **changes)


def test_figures(record):
    folders = [record(f"{method}{seed}", method, seed) for method in PAPER for seed in (0, 2)]
    runs, _ = read(folders)
    lines = figures.curves(runs).axes[0].get_lines()
    assert [line.get_label() for line in lines] == [
        "No Bprop: 20.10 %",
        "Bprop: 1.60 %",
        "DNI: 3.10 %",
        "cDNI: 2.10 %",
    ]
    drawn = figures.quality(runs)
    assert drawn is not None
    assert len(drawn.axes) == 2 * 3
    drawn = figures.timeline(runs)
    assert drawn is not None
    titles = [ax.get_title("left") for ax in drawn.axes]
    assert titles == ["Bprop: one step takes 12.0 ms"] + [
        f"{name}: one step takes 17.0 ms, 1.4 times Bprop's" for name in ("DNI", "cDNI")
    ]
    notes = [[t.get_text() for t in ax.texts if "updated" in t.get_text()] for ax in drawn.axes]
    assert notes[0] == ["layer 1 updated after 12.0 ms"]
    assert notes[1] == ["layer 1 updated after 7.0 ms,\nbefore layer 2 runs"]


def test_a_long_step_comes_with_bprop_enlarged(record):
    slow = record("slow", "dni")
    text = (slow / "record.jsonl").read_text()
    (slow / "record.jsonl").write_text(text.replace('"start": 16, "end": 17', '"start": 16, "end": 60'))
    drawn = figures.timeline(read([slow, record("b", "bprop")])[0])
    assert drawn is not None
    assert [ax.get_title("left").split(":")[0] for ax in drawn.axes] == ["Bprop", "Bprop", "DNI"]
    assert drawn.axes[0].get_xlim()[1] < drawn.axes[1].get_xlim()[1] == drawn.axes[2].get_xlim()[1]


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.0), (1.7, 1.8), (2.4, 2.6), (1.5, 4), (2, 90), (0.01, 100)])
def test_an_error_axis_has_plain_labels(record, low, high):
    runs, _ = read([record("a", "bprop", error=low), record("b", "cdni", error=high / 2)])
    figure = figures.curves(runs)
    svg(figure)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert 4 <= len(labels) <= 20
    assert len(set(labels)) == len(labels)
    assert all(float(label) > 0 and "e" not in label for label in labels)
