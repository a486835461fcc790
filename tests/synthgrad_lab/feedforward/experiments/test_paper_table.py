"""The paper's section 3.1: its cells in three budgets, their records, the tables made of them."""

import json
import os
import signal
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from synthgrad_lab.feedforward import paper
from synthgrad_lab.feedforward import tables as feedforward_tables
from synthgrad_lab.feedforward.experiments import paper_table as feedforward
from synthgrad_lab.feedforward.recipes import RECIPES
from synthgrad_lab.feedforward.settings import METHODS, PAPER, TRAINING
from synthgrad_lab.reporting import documents as page
from synthgrad_lab.running.gather import gather
from synthgrad_lab.running.jsonl import lines_to
from synthgrad_lab.running.loop import Interrupted, run

budgets = pytest.mark.parametrize("name", feedforward.BUDGETS)


def cells(name, **options):
    return feedforward.cells(feedforward.BUDGETS[name], **options)


# --- cells -------------------------------------------------------------------------------------------------


@budgets
def test_every_cell_is_its_own_run(name):
    todo = cells(name)
    assert len({repr(s) for s in todo.values()}) == len(todo)


@budgets
def test_every_number_of_the_papers_table_has_its_cells(name):
    budget, todo = feedforward.BUDGETS[name], cells(name)
    wanted = 0
    for recipe in RECIPES:
        for layers in range(2, 8):
            for method in PAPER:
                data = RECIPES[recipe](method).data
                if paper.reported(data, recipe, method, layers) is None:
                    continue
                wanted += 1
                runs = [todo[f"{recipe}-{layers}x-{method}-seed{seed}"] for seed in range(budget.seeds)]
                assert {(s.recipe, s.layers, s.method, s.data) for s in runs} == {(recipe, layers, method, data)}
                assert [s.seed for s in runs] == list(range(budget.seeds))
    assert wanted == 12 * 4


@budgets
def test_methods_of_a_network_differ_in_nothing_that_makes_them_incomparable(name):
    """Equal data, sizes and steps; every method at one size of each network."""
    groups = {}
    for cell, s in cells(name).items():
        if not any(word in cell for word in feedforward_tables.EXTRA):
            groups.setdefault((s.recipe, s.layers), []).append(s)
    for (_, layers), runs in groups.items():
        assert len({(s.data, s.width, s.steps, s.batch, s.augment, s.net) for s in runs}) == 1
        assert {*PAPER, "critic", "local-loss"} <= {s.method for s in runs}
        if layers == 4:
            assert {s.method for s in runs} == set(METHODS)
    assert {recipe for recipe, _ in groups} == set(RECIPES)


@budgets
def test_the_extra_cells(name):
    todo = cells(name).values()
    assert {s.method for s in todo if s.layers == 21} == {"bprop", "local-loss", "cdni", "critic"}
    assert {s.method for s in todo if s.unlock == "complete"} == {"dni", "cdni"}
    assert {(s.method, s.p_update) for s in todo if s.p_update < 1} == {("cdni", 0.05)}


def test_the_papers_budget_is_the_papers():
    for s in cells("paper").values():
        assert (s.preset, s.steps, s.batch, s.optimizer.lr, s.epochs) == ("paper", 500_000, 256, 3e-5, None)
        assert s.width == paper.WIDTHS[s.recipe]


def test_smaller_budgets_are_smaller():
    def work(name):
        return sum(s.steps * s.batch * s.width for s in cells(name).values())

    assert work("quick") < 0.1 * work("standard") < 0.01 * work("paper")


def test_the_folder_of_cifar_is_of_cifar_only(tmp_path):
    for s in cells("quick", cifar_dir=str(tmp_path)).values():
        assert s.data_dir == (str(tmp_path) if s.data == "cifar10" else None)


# --- records -----------------------------------------------------------------------------------------------

MEASURED = {"seconds", "seconds_per_step", "peak_memory_mb", "record"}


def test_what_was_run_before_is_kept_and_what_was_interrupted_goes_on(tiny, tmp_path):
    todo = {f"{m}-seed0": tiny(m, steps=6, width=4) for m in ("bprop", "cdni")}
    folder, file = tmp_path / "cells", tmp_path / "results" / "gathered.jsonl"
    done, cut = (replace(s, out=str(folder / name)) for name, s in todo.items())
    whole = [run(done), run(replace(cut, out=str(tmp_path / "whole")))]
    with pytest.raises(Interrupted):
        run(cut, lambda step, error: os.kill(os.getpid(), signal.SIGINT) if step == 2 else None)
    kept = Path(whole[0]["record"]).read_bytes()
    assert gather(todo, folder, file, workers=1) == file
    assert Path(whole[0]["record"]).read_bytes() == kept
    content = file.read_bytes()
    assert str(tmp_path).encode() not in content
    rows = [json.loads(line) for line in content.splitlines()]
    assert [row["cell"] for row in rows] == list(todo)
    for row, s, alone in zip(rows, todo.values(), whole, strict=True):
        told = json.loads(json.dumps(asdict(s)))
        assert row["settings"] == {k: v for k, v in told.items() if k not in ("out", "data_dir")}
        same = alone.keys() - MEASURED
        assert {k: row[k] for k in same} == {k: alone[k] for k in same}
    assert gather(todo, folder, file, workers=1).read_bytes() == content
    other = {"another": replace(done, out=None, seed=7)}
    gather(other, folder, file, workers=1)  # whoever asks for one cell does not lose the others
    assert file.read_bytes().splitlines(True)[1:] == content.splitlines(True)


# --- tables ------------------------------------------------------------------------------------------------


def row(cell, method, seed, error, layers=4, recipe="mnist-fcn", width=256, steps=500, **changes):
    data = RECIPES[recipe](method).data
    settings = {"batch": 256, "unlock": "update", "p_update": 1.0} | changes
    quality = {"h1": {"cosine": 0.5}} if method in ("dni", "cdni", "critic") else {}
    return {
        "cell": f"{recipe}-{layers}x-{cell}-seed{seed}", "recipe": recipe, "method": method, "layers": layers,
        "width": width, "steps": steps, "seed": seed, "data": data, "images": data.upper(), "test_error": error,
        "validation_error": error + 1, "quality": quality, "settings": settings,
        "seconds_per_step": 0.01 * (seed + 1), "peak_memory_mb": 10.0, "parameters": 1000, "model_parameters": 0,
        "run.precision": "fp32",
    }  # fmt: skip


@pytest.fixture
def records():
    rows = [row("bprop", "bprop", seed, error) for seed, error in enumerate((1.0, 2.0))]
    for method, errors in {"cdni": (2.0, 3.0), "critic": (1.5, 2.0), "stale": (4.0, 5.0)}.items():
        for seed, error in enumerate(errors):
            extra = {"seconds_per_step": 0.03, "model_parameters": 250, "peak_memory_mb": 5.0}
            rows.append(row(method, method, seed, error) | extra)
    rows += [row("bprop", "bprop", 0, 40.0, layers=3, recipe="cifar-fcn", width=64, steps=1758)]
    rows += [row("bprop", "bprop", 0, 9.0, layers=21)]
    rows += [row("cdni-p0.05", "cdni", seed, 6.0 + seed, steps=60_000, p_update=0.05) for seed in range(3)]
    rows += [row("dni-complete", "dni", 0, 8.0, steps=1200, unlock="complete"), row("dni-long", "dni", 0, 5.0)]
    return rows


def test_errors_stand_beside_the_papers(records):
    mnist, cifar = feedforward_tables.errors(records)
    assert (mnist["network"], mnist["layers"], mnist["width"]) == ("mnist-fcn", "4", "256")
    assert mnist["epochs"] == f"{500 * 256 / TRAINING['mnist']:.1f}" == "2.3"
    assert mnist["Bprop"] == "1.50 ± 0.71 [1.8]"
    assert mnist["cDNI"] == "2.50 ± 0.71 [1.9]"
    assert mnist["Critic"] == "1.75 ± 0.35"
    assert mnist["No Bprop"] == mnist["DNI"] == ""
    assert mnist["best decoupled over Bprop"] == "+0.25 (Critic)"
    assert (cifar["network"], cifar["width"], cifar["epochs"]) == ("cifar-fcn", "64 (paper 1000)", "10.0")
    assert cifar["Bprop"] == "40.00 [43.5]"
    assert cifar.keys() - {"best decoupled over Bprop"} == mnist.keys() - {"best decoupled over Bprop"}


def test_baselines_are_shown_where_they_were_run(records):
    (only,) = feedforward_tables.baselines(records)
    assert (only["network"], only["layers"]) == ("mnist-fcn", "4")
    assert only["Stale gradients"] == "4.50 ± 0.71"
    assert only["Bprop"] == "1.50 ± 0.71"
    assert only["Feedback alignment"] == only["Local loss"] == ""


def test_variants_are_kept_apart(records):
    found = {(r["method"], r["layers"], r["steps"]): r for r in feedforward_tables.variants(records)}
    assert len(found) == 4
    rare = found["cDNI", "4", "60,000"]
    assert (rare["p_update"], rare["seeds"], rare["test error %"]) == ("0.05", "3", "7.00 ± 1.00")
    assert rare["validation error %"] == "8.00 ± 1.00"
    assert found["DNI", "4", "1,200"]["unlock"] == "complete"
    assert (found["Bprop", "21", "500"]["unlock"], found["Bprop", "21", "500"]["seeds"]) == ("", "1")


def test_costs_are_relative_to_bprop_on_the_same_network(records):
    found = {(r["network"].split(",")[0], r["method"]): r for r in feedforward_tables.costs(records)}
    assert set(found) == {("mnist-fcn", m) for m in ("Bprop", "cDNI", "Critic", "Stale gradients")} | {
        ("cifar-fcn", "Bprop")
    }
    told = found["mnist-fcn", "cDNI"]
    assert told["s/step × Bprop"] == "2.00"  # 0.03 over the median of 0.01 and 0.02
    assert told["× Bprop"] == "0.50"
    assert told["parameters beside the layers'"] == "+25 %"
    assert found["mnist-fcn", "Bprop"]["s/step × Bprop"] == "1.00"


def test_sparse_updates_by_probability():
    rows = [row("x", "dni", s, 10 * p + s, unlock=u, p_update=p) for s in (0, 1) for p in (1.0, 0.2)
            for u in ("update", "complete")]  # fmt: skip
    first, second = feedforward_tables.sparse(rows)
    assert (first["method"], second["method"]) == ("DNI, update", "DNI, complete")
    assert list(first)[2:] == ["p = 0.2", "p = 1"]
    assert (first["p = 0.2"], first["p = 1"]) == ("2.50 ± 0.71", "10.50 ± 0.71")


def test_the_page_has_every_table(records, tmp_path):
    lines_to(tmp_path / "results" / "feedforward.jsonl", records)
    path = feedforward.write_page("quick", tmp_path / "runs", tmp_path / "results")
    text = path.read_text()
    assert "budget: quick" in text
    assert "MNIST, CIFAR10" in text
    assert text.count("<!-- table: ") == text.count("<!-- end -->") == 4
    for make in (
        feedforward_tables.errors, feedforward_tables.baselines, feedforward_tables.variants,
        feedforward_tables.costs,
    ):  # fmt: skip
        assert page.markdown(make(records)) in text
