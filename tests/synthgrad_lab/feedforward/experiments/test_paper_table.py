"""The paper's section 3.1: its runs in three budgets, their records, the tables made of them."""

import json
import os
import signal
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from synthgrad_lab.feedforward import paper, tables
from synthgrad_lab.feedforward.budgets import BUDGETS
from synthgrad_lab.feedforward.experiments.paper_table import PaperTable
from synthgrad_lab.feedforward.recipes import RECIPES
from synthgrad_lab.feedforward.settings import METHODS, PAPER, TRAINING
from synthgrad_lab.reporting import documents
from synthgrad_lab.running.experiment import Planned
from synthgrad_lab.running.gather import gather
from synthgrad_lab.running.jsonl import lines_to
from synthgrad_lab.running.loop import Interrupted, run

budgets = pytest.mark.parametrize("name", BUDGETS)


def planned(name, **options):
    return list(PaperTable(budget=name, **options).runs())


def settings(name, **options):
    return [p.settings for p in planned(name, **options)]


# --- runs --------------------------------------------------------------------------------------------------


@budgets
def test_every_planned_run_is_its_own(name):
    todo = planned(name)
    assert len({repr(p.settings) for p in todo}) == len({p.name for p in todo}) == len(todo)


@budgets
def test_every_number_of_the_papers_table_has_its_runs(name):
    budget, todo = BUDGETS[name], {p.name: p.settings for p in planned(name)}
    wanted = 0
    for recipe in RECIPES:
        for layers in range(2, 8):
            for method in PAPER:
                data = RECIPES[recipe](method).data
                if paper.reported(data, recipe, method, layers) is None:
                    continue
                wanted += 1
                runs = [todo[f"{recipe}-{layers}x-{method}--seed{seed}"] for seed in range(budget.seeds)]
                assert {(s.recipe, s.layers, s.method, s.data) for s in runs} == {(recipe, layers, method, data)}
                assert [s.seed for s in runs] == list(range(budget.seeds))
    assert wanted == 12 * 4


@budgets
def test_methods_of_a_network_differ_in_nothing_that_makes_them_incomparable(name):
    """Equal data, sizes and steps; every method at one size of each network."""
    groups = {}
    for p in planned(name):
        if p.records == "paper-table":
            groups.setdefault((p.settings.recipe, p.settings.layers), []).append(p.settings)
    for (_, layers), runs in groups.items():
        assert len({(s.data, s.width, s.steps, s.batch, s.augment, s.net) for s in runs}) == 1
        assert {*PAPER, "critic", "local-loss"} <= {s.method for s in runs}
        if layers == 4:
            assert {s.method for s in runs} == set(METHODS)
    assert {recipe for recipe, _ in groups} == set(RECIPES)


@budgets
def test_the_variants(name):
    todo = [p.settings for p in planned(name) if p.records == "variants"]
    assert {s.method for s in todo if s.layers == 21} == {"bprop", "local-loss", "cdni", "critic"}
    assert {s.method for s in todo if s.unlock == "complete"} == {"dni", "cdni"}
    assert {(s.method, s.p_update) for s in todo if s.p_update < 1} == {("cdni", 0.05)}
    once = [s for s in todo if s.run.precision == "fp32" and s.recipe == "cifar-cnn"]
    assert [s.seed for s in once] == [0, 0]


def test_the_papers_budget_is_the_papers():
    for s in settings("paper"):
        assert (s.preset, s.steps, s.batch, s.optimizer.lr, s.epochs) == ("paper", 500_000, 256, 3e-5, None)
        assert s.width == paper.WIDTHS[s.recipe]


def test_smaller_budgets_are_smaller():
    def work(name):
        return sum(s.steps * s.batch * s.width for s in settings(name))

    assert work("quick") < 0.1 * work("standard") < 0.01 * work("paper")


def test_the_folder_of_cifar_is_of_cifar_only(tmp_path):
    for s in settings("quick", cifar_dir=str(tmp_path)):
        assert s.data_dir == (str(tmp_path) if s.data == "cifar10" else None)


# --- records -----------------------------------------------------------------------------------------------

MEASURED = {"seconds", "seconds_per_step", "peak_memory_mb", "record"}


def test_a_finished_run_is_kept_and_an_interrupted_one_is_resumed(tiny, tmp_path):
    todo = {p.name: p for m in ("bprop", "cdni") if (p := Planned({"variant": m}, tiny(m, steps=6, width=4)))}
    folder, file = tmp_path / "runs", tmp_path / "results" / "gathered.jsonl"
    done, cut = (replace(p.settings, out=str(folder / name)) for name, p in todo.items())
    whole = [run(done), run(replace(cut, out=str(tmp_path / "whole")))]
    with pytest.raises(Interrupted):
        run(cut, lambda step, error: os.kill(os.getpid(), signal.SIGINT) if step == 2 else None)
    kept = Path(whole[0]["record"]).read_bytes()
    assert gather(todo, folder, file, workers=1) == file
    assert Path(whole[0]["record"]).read_bytes() == kept
    content = file.read_bytes()
    assert str(tmp_path).encode() not in content
    rows = [json.loads(line) for line in content.splitlines()]
    assert [row["run"] for row in rows] == list(todo)
    assert [row["variant"] for row in rows] == ["bprop", "cdni"]
    for row, p, alone in zip(rows, todo.values(), whole, strict=True):
        values = json.loads(json.dumps(asdict(p.settings)))
        assert row["settings"] == {k: v for k, v in values.items() if k not in ("out", "data_dir")}
        same = alone.keys() - MEASURED
        assert {k: row[k] for k in same} == {k: alone[k] for k in same}
    assert gather(todo, folder, file, workers=1).read_bytes() == content
    other = Planned({"variant": "another"}, replace(done, out=None, seed=7))
    gather({other.name: other}, folder, file, workers=1)  # one more run; the others' records stay
    assert file.read_bytes().splitlines(True)[1:] == content.splitlines(True)


# --- tables ------------------------------------------------------------------------------------------------


def row(variant, method, seed, error, layers=4, recipe="mnist-fcn", width=256, steps=500, **changes):
    data = RECIPES[recipe](method).data
    values = {"recipe": recipe, "method": method, "layers": layers, "width": width, "steps": steps, "seed": seed}
    settings = {**values, "data": data, "batch": 256, "unlock": "update", "p_update": 1.0} | changes
    quality = {"h1": {"cosine": 0.5}} if method in ("dni", "cdni", "critic") else {}
    variant = f"{recipe}-{layers}x-{variant}"
    return {
        "run": f"{variant}--seed{seed}", "variant": variant, **values, "data": data, "images": data.upper(),
        "test_error": error, "validation_error": error + 1, "quality": quality, "settings": settings,
        "seconds_per_step": 0.01 * (seed + 1), "peak_memory_mb": 10.0, "parameters": 1000, "model_parameters": 0,
        "precision": "fp32",
    }  # fmt: skip


@pytest.fixture
def records():
    """Records of the paper's table."""
    rows = [row("bprop", "bprop", seed, error) for seed, error in enumerate((1.0, 2.0))]
    for method, errors in {"cdni": (2.0, 3.0), "critic": (1.5, 2.0), "stale": (4.0, 5.0)}.items():
        for seed, error in enumerate(errors):
            extra = {"seconds_per_step": 0.03, "model_parameters": 250, "peak_memory_mb": 5.0}
            rows.append(row(method, method, seed, error) | extra)
    return [*rows, row("bprop", "bprop", 0, 40.0, layers=3, recipe="cifar-fcn", width=64, steps=1758)]


@pytest.fixture
def variants():
    rows = [row("bprop", "bprop", 0, 9.0, layers=21)]
    rows += [row("cdni-p0.05", "cdni", seed, 6.0 + seed, steps=60_000, p_update=0.05) for seed in range(3)]
    return [
        *rows,
        row("dni-complete", "dni", 0, 8.0, steps=1200, unlock="complete"),
        row("dni-long", "dni", 0, 5.0),
    ]


def test_errors_stand_beside_the_papers(records):
    mnist, cifar = tables.errors(records)
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
    (only,) = tables.baselines(records)
    assert (only["network"], only["layers"]) == ("mnist-fcn", "4")
    assert only["Stale gradients"] == "4.50 ± 0.71"
    assert only["Bprop"] == "1.50 ± 0.71"
    assert only["Feedback alignment"] == only["Local loss"] == ""


def test_variants_are_separate_rows(variants):
    found = {(r["method"], r["layers"], r["steps"]): r for r in tables.variants(variants)}
    assert len(found) == 4
    rare = found["cDNI", "4", "60,000"]
    assert (rare["p_update"], rare["seeds"], rare["test error %"]) == ("0.05", "3", "7.00 ± 1.00")
    assert rare["validation error %"] == "8.00 ± 1.00"
    assert found["DNI", "4", "1,200"]["unlock"] == "complete"
    assert (found["Bprop", "21", "500"]["unlock"], found["Bprop", "21", "500"]["seeds"]) == ("", "1")


def test_costs_are_relative_to_bprop_on_the_same_network(records):
    found = {(r["network"].split(",")[0], r["method"]): r for r in tables.costs(records)}
    assert set(found) == {("mnist-fcn", m) for m in ("Bprop", "cDNI", "Critic", "Stale gradients")} | {
        ("cifar-fcn", "Bprop")
    }
    cdni = found["mnist-fcn", "cDNI"]
    assert cdni["s/step × Bprop"] == "2.00"  # 0.03 over the median of 0.01 and 0.02
    assert cdni["× Bprop"] == "0.50"
    assert cdni["parameters beside the layers'"] == "+25 %"
    assert found["mnist-fcn", "Bprop"]["s/step × Bprop"] == "1.00"


def test_sparse_updates_by_probability():
    rows = [row("x", "dni", s, 10 * p + s, unlock=u, p_update=p) for s in (0, 1) for p in (1.0, 0.2)
            for u in ("update", "complete")]  # fmt: skip
    first, second = tables.sparse(rows)
    assert (first["method"], second["method"]) == ("DNI, update", "DNI, complete")
    assert list(first)[2:] == ["p = 0.2", "p = 1"]
    assert (first["p = 0.2"], first["p = 1"]) == ("2.50 ± 0.71", "10.50 ± 0.71")


def test_the_readmes_table_has_the_4_layer_net_only():
    def of(method, seed, error, depth=1, **more):
        return row(method, method, seed, error, steps=3000, model={"depth": depth}, **more)

    errors = {
        ("bprop", 1): (1.0, 2.0),
        ("cdni", 1): (2.0, 3.0),
        ("cdni", 0): (9.0, 9.0),
        ("local-loss", 0): (8.0, 8.0),
    }
    rows = [of(m, seed, error, depth) for (m, depth), both in errors.items() for seed, error in enumerate(both)]
    rows += [row("bprop", "bprop", 0, 7.0, steps=500), row("bprop", "bprop", 0, 7.0, layers=6, steps=3000)]
    rows[-2:] = [r | {"settings": r["settings"] | {"model": {"depth": 1}}} for r in rows[-2:]]
    assert tables.demo(rows) == [
        {"method": "Bprop", "test error %": "1.50 ± 0.71", "paper, 500k steps": "1.8"},
        {"method": "cDNI", "test error %": "2.50 ± 0.71", "paper, 500k steps": "1.9"},
    ]
    assert tables.demo([]) == []


def test_the_page_has_every_table_that_has_records(records, variants, tmp_path):
    experiment, results = PaperTable(budget="quick"), tmp_path / "runs"
    lines_to(results / "feedforward" / "paper-table.jsonl", records)
    (path,) = experiment.finish(tmp_path / "runs", results)
    assert path.read_text().count("<!-- table: ") == 3
    lines_to(results / "feedforward" / "variants.jsonl", variants)
    text = experiment.finish(tmp_path / "runs", results)[0].read_text()
    assert "budget: quick" in text
    assert "MNIST, CIFAR10" in text
    assert text.count("<!-- table: ") == text.count("<!-- end -->") == 4
    for make in (tables.errors, tables.baselines, tables.costs):
        assert documents.markdown(make(records)) in text
    assert documents.markdown(tables.variants(variants)) in text


def test_other_budgets_keep_their_records_and_runs_apart():
    places = {name: (PaperTable(budget=name).place, PaperTable(budget=name).documented) for name in BUDGETS}
    assert places == {
        "quick": ("feedforward-quick", False),
        "standard": ("feedforward-standard", True),
        "paper": ("feedforward-paper", False),
    }
