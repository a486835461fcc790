"""The recipe of two networks on two clocks: its digits, schedule, runs, table and pictures."""

import functools
import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from synthgrad_lab.cli import main
from synthgrad_lab.clocks import bench as bench
from synthgrad_lab.clocks import experiments as experiment
from synthgrad_lab.clocks import report as pictures
from synthgrad_lab.clocks.digits import moments
from synthgrad_lab.clocks.schedule import as_text, drawn, schedule
from synthgrad_lab.clocks.settings import METHODS, clocks
from synthgrad_lab.clocks.tables import table
from synthgrad_lab.clocks.training import TwoClocks
from synthgrad_lab.data import load
from synthgrad_lab.feedforward.report import write
from synthgrad_lab.reporting.runs import read
from synthgrad_lab.running.loop import Interrupted, resume, run

KEYS = "odd_error threes_error updates_a updates_b samples seconds recipe method T curve record parameters"
PASSING = {"seconds", "record"}


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    monkeypatch.setattr("synthgrad_lab.clocks.training.load", functools.cache(load))
    monkeypatch.setattr("synthgrad_lab.clocks.training.STREAMS", 20)

    def make(method="dni", name="run", **changes):
        small = {"T": 2, "width": 8, "model.hidden": 4, "batch": 4, "steps": 6, "run.eval_every": 3}
        return replace(clocks(method), **{**small, "out": str(tmp_path / name), **changes})

    return make


def test_a_rounds_truth_is_counted_from_its_digits():
    x, y = torch.arange(10.0).view(10, 1, 1, 1).expand(10, 1, 28, 28), torch.arange(10)  # an image says what it is
    found = list(moments(x, y, 3, 5, torch.Generator().manual_seed(0)))
    digits = torch.stack([moment.images[:, 0] for moment in found]).long()
    assert [(moment.window, moment.phase) for moment in found] == [(w, p) for w in range(3) for p in range(3)]
    assert digits.unique().numel() > 5
    for t, moment in enumerate(found):
        asked = t % 3 == 2
        assert (moment.odd is not None) == (moment.seen is not None) == asked
        if asked:
            assert torch.equal(moment.odd, (digits[t - 2 : t + 1] % 2 == 1).sum(0))
            assert torch.equal(moment.seen, (digits[t - 2 : t + 1] == 3).sum(0))
        assert (moment.threes is not None) == (t == 8)
    assert torch.equal(found[-1].threes, (digits == 3).sum(0))


@pytest.mark.parametrize(
    ("method", "a", "b"),
    [
        ("dni", "    t  tsu    t  tsu    t  tsu    t  tsu", "    .    t    .   tu    .    t    .   tu"),
        ("bprop", "    t   ts    t  tsu    t   ts    t  tsu", "    .    t    .   tu    .    t    .   tu"),
    ],
)
def test_who_does_what_when(tiny, method, a, b):
    lines = as_text(schedule(tiny(method))).splitlines()
    assert lines[1:3] == [f"A    {a}", f"B    {b}"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("recurrent", ["truncate", "dni"])
def test_a_run_counts_what_it_did(tiny, method, recurrent):
    result = run(tiny(method, recurrent=recurrent))
    assert set(KEYS.split()) <= set(result)
    assert result["samples"] == 6 * 2**2 * 4
    assert (result["updates_a"], result["updates_b"]) == (6 if method == "bprop" else 12, 6)
    assert [samples for samples, *_ in result["curve"]] == [48, 96]
    assert 0 <= result["odd_error"] <= 100
    assert (result["model_parameters"] > 0) == (method in ("dni", "cdni") or recurrent == "dni")


def test_only_cut_keeps_bs_gradient_from_the_message(tiny):
    moved = {}
    for method in METHODS:
        training = TwoClocks(tiny(method, steps=20))
        before = training.system.networks["A"].message[0].weight.clone()
        for done in range(20):
            training.step(done)
        moved[method] = not torch.equal(training.system.networks["A"].message[0].weight, before)
    assert moved == {"bprop": True, "cut": False, "dni": True, "cdni": True}


@pytest.mark.parametrize("recurrent", ["truncate", "dni"])
def test_an_interrupted_run_ends_as_if_it_had_not_been(tiny, recurrent):
    whole = run(tiny(recurrent=recurrent))

    def interrupt(step, measure):
        if step == 4:
            os.kill(os.getpid(), signal.SIGINT)

    cut = tiny(recurrent=recurrent, name="cut")
    with pytest.raises(Interrupted):
        run(cut, interrupt)
    again = resume(Path(cut.out))
    assert {k: v for k, v in again.items() if k not in PASSING} == {
        k: v for k, v in whole.items() if k not in PASSING
    }


def test_evaluation_leaves_the_training_as_it_is(tiny):
    one, other = TwoClocks(tiny()), TwoClocks(tiny())
    for done in range(3):
        one.step(done)
        other.step(done)
        assert set(one.point()) >= {"odd_error", "threes_error", "samples"}
    for p, q in zip(one.system.parameters(), other.system.parameters(), strict=True):
        assert torch.equal(p, q)


def test_the_table_finds_where_bprops_end_was_reached():
    def record(method, seed, curve):
        ends = {"odd_error": curve[-1][1], "threes_error": 30.0, "samples": 300, "updates_a": 12, "updates_b": 6}
        return {"T": 4, "method": method, "seed": seed, "curve": curve, **ends}

    records = [
        record("bprop", 0, [[100, 50.0, 1.0], [200, 30.0, 1.0], [300, 9.0, 1.0]]),
        record("bprop", 1, [[100, 50.0, 1.0], [200, 10.0, 1.0], [300, 11.0, 1.0]]),
        record("dni", 0, [[100, 10.0, 1.0], [200, 8.0, 1.0], [300, 7.0, 1.0]]),
        record("dni", 1, [[100, 20.0, 1.0], [200, 10.0, 1.0], [300, 12.0, 1.0]]),
        record("cut", 0, [[100, 20.0, 1.0], [200, 19.0, 1.0], [300, 18.0, 1.0]]),
    ]
    rows = {row["method"]: row for row in table(records)}
    assert rows["DNI"]["digits to Bprop's end"] == "150"
    assert rows["Bprop"]["digits to Bprop's end"] == "250"
    assert rows["Cut"]["digits to Bprop's end"] == "not reached"
    assert rows["DNI"]["A: odd miscounted %"] == "9.50 ± 3.54"
    assert rows["Cut"]["A: odd miscounted %"] == "18.00"


def test_cells_see_equally_many_digits():
    cells = experiment.cells()
    seen = [s.steps * s.T**2 * s.batch for s in cells.values()]
    assert min(seen) > 0.99 * max(seen)
    assert list(cells)[:4] == [f"T4-{method}-seed0" for method in METHODS]


def test_commands_show_and_report(tiny, tmp_path, capsys):
    settings = [tiny(method, name=method) for method in ("bprop", "dni")]
    for s in settings:
        run(s)
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "page.html"), "--json"]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "Two networks, two clocks" in page
    assert page.count("<img") == 2
    assert main(["show", "clocks", "T=2", "--json"]) == 0
    assert "tsu" in json.loads(capsys.readouterr().out.splitlines()[-1])["example"]


def test_pictures_show_every_run(tiny, tmp_path):
    for method in ("bprop", "cut"):
        run(tiny(method, name=method))
    runs, _ = read([tmp_path / "bprop", tmp_path / "cut"])
    assert [len(ax.lines) for ax in pictures.curves(runs).axes] == [2, 2]
    figure = drawn({run.settings["method"]: run.events for run in runs})
    assert [ax.get_title("left") for ax in figure.axes] == ["Bprop", "Cut"]
    assert pictures.schedules([replace(run, events=[]) for run in runs]) is None
    assert write([tmp_path / "bprop"], tmp_path / "one.html").exists()


def test_memory_is_that_of_T_steps_and_not_of_all(monkeypatch):
    monkeypatch.setattr(bench, "LENGTHS", (2, 4))
    memory = {(row["T"], row["method"]): row["memory_mb"] for row in bench.bench_clocks()}
    assert memory[4, "Bprop"] > 2.2 * memory[2, "Bprop"]
    assert memory[4, "DNI"] < 2 * memory[2, "DNI"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "clocks", "method=dnni"], "did you mean 'dni' or 'cdni'?"),
        (["run", "clocks", "T=0"], "T=0: it must be a number of at least 1"),
        (["run", "clocks", "layers=3"], "unknown setting 'layers'"),
    ],
)
def test_mistakes_are_answered_in_a_line(words, message, capsys):
    assert main(words) in (1, 2)
    assert message in capsys.readouterr().err
