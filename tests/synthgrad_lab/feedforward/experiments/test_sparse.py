"""Sparse updates, complete unlock, and the experiment about both."""

import json
import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from synthgrad import checkpoint
from synthgrad_lab.data import load
from synthgrad_lab.feedforward.experiments import sparse
from synthgrad_lab.feedforward.methods.base import run_parts
from synthgrad_lab.feedforward.recipes import mnist_fcn
from synthgrad_lab.feedforward.settings import INTERFACED, METHODS, Settings
from synthgrad_lab.feedforward.trainer import Trainer
from synthgrad_lab.running import grid
from synthgrad_lab.running.loop import run
from synthgrad_lab.running.settings import vary

SPARSE = (*INTERFACED, "local-loss")


def small(method, **changes):
    tiny = {"width": 4, "batch": 4, "model.hidden": 4, "model.input_hidden": 4, "steps": 10}
    return vary(mnist_fcn(method), {**tiny, **changes})


def stepped(s, steps):
    """A trainer after some steps, and the layers in the order of their updates, step by step."""
    trainer, order = Trainer(s), []
    update = trainer.update
    trainer.update = lambda k: (order[-1].append(k), update(k))
    generator = torch.Generator().manual_seed(1)
    x, y = torch.rand(s.batch, 1, 28, 28, generator=generator), torch.randint(10, (s.batch,), generator=generator)
    for _ in range(steps):
        order.append([])
        task = trainer.step(x, y)
        assert (task is None) == (s.layers - 1 not in order[-1])
    return trainer, order


def weights(trainer):
    return [p for module in (*trainer.parts, trainer.method) for p in module.parameters()]


@pytest.mark.parametrize(
    ("p", "changes"), [(0.3, {}), (0.3, {"unlock": "complete"}), (0.05, {"layers": 3}), (0.9, {"layers": 3})]
)
def test_each_layer_is_updated_independently_with_the_probability(p, changes):
    steps = 200
    trainer, order = stepped(small("cdni", p_update=p, **changes), steps)
    deviation = (steps * p * (1 - p)) ** 0.5
    assert all(abs(count - steps * p) < 5 * deviation for count in trainer.updates)
    assert Counter(k for found in order for k in found) == dict(enumerate(trainer.updates))
    assert all(len(set(found)) == len(found) for found in order)
    below, above = (sum({0, 1} & set(found) == wanted for found in order) for wanted in ({0}, {1}))
    assert below > 0  # one without the other
    assert above > 0


def test_the_order_is_random():
    _, order = stepped(small("cdni", layers=3, p_update=0.9), 150)
    found = Counter(tuple(each) for each in order if len(each) == 3)
    assert len(found) == 6
    assert min(found.values()) > 5


@pytest.mark.parametrize("method", SPARSE)
def test_the_seed_decides(method):
    (a, order), (b, same), (_, other) = (stepped(small(method, p_update=0.5, seed=seed), 12) for seed in (0, 0, 1))
    assert order == same
    assert order != other
    assert all(map(torch.equal, weights(a), weights(b)))


@pytest.mark.parametrize(
    ("method", "unlock"),
    [*((method, "update") for method in SPARSE), *((method, "complete") for method in INTERFACED)],
)
def test_the_order_does_not_matter_when_every_layer_is_updated(method, unlock):
    """With p_update just below 1 the order is random, and every layer is drawn."""
    (dense, straight), (drawn, shuffled) = (
        stepped(small(method, unlock=unlock, p_update=p), 8) for p in (1.0, 1 - 1e-7)
    )
    assert straight == [[0, 1, 2, 3]] * 8
    assert shuffled != straight
    assert drawn.updates == dense.updates == [8] * 4
    assert all(map(torch.equal, weights(dense), weights(drawn)))


@pytest.mark.parametrize("method", sorted({*METHODS} - {*SPARSE}))
def test_methods_whose_layers_wait_for_each_other_are_refused(method):
    with pytest.raises(ValueError, match="p_update below 1"):
        small(method, p_update=0.5)
    with pytest.raises(ValueError, match="p_update below 1"):
        small("cdni", unlock="fused", p_update=0.5)


@pytest.mark.parametrize(("method", "p"), [("cdni", 1.0), ("critic", 0.5)])
def test_a_completely_unlocked_net_is_trained_whole_and_evaluated_as_a_chain(tiny, method, p):
    s = tiny(method, unlock="complete", p_update=p, **{"model.input_hidden": 8})
    result = run(s)
    assert (result["updates_per_layer"] == [24] * 4) == (p == 1)
    assert set(result["quality"]) == {"h1", "h2", "h3"}
    trainer, images = Trainer(s), load("mnist")
    trainer.load_state_dict(checkpoint.load(Path(s.out))["trainer"])
    parts = [part.eval() for part in trainer.parts]
    with torch.no_grad():
        wrong = (run_parts(parts, images.test_x).argmax(1) != images.test_y).double().mean().item()
    assert result["test_error"] == pytest.approx(100 * wrong, abs=0.05)


def test_every_planned_run_is_its_own():
    for experiment in (sparse.Sparse(), sparse.Sparse(values=(0.25, 1.0), steps=(7,), seeds=2)):
        todo = list(experiment.runs())
        assert len({repr(p.settings) for p in todo}) == len({p.name for p in todo}) == len(todo)
    assert len(todo) == 4 * 2 * 2
    assert {(p.settings.method, p.settings.unlock) for p in todo} == set(sparse.PANELS)
    assert {p.settings.steps for p in todo} == {7}


@pytest.mark.parametrize("options", [{"values": (0.0,)}, {"values": (0.5, 2.0)}, {"steps": (0,)}, {"seeds": 0}])
def test_options_out_of_range(options):
    (name,) = options
    with pytest.raises(ValueError, match=f"{name}=.*: it must be"):
        sparse.Sparse(**options)


def test_the_experiment_writes_records_and_a_figure(tmp_path, monkeypatch, caplog):
    def here(todo, folder, workers, keep):
        for name, s in todo.items():
            keep(name, run(replace(s, out=str(folder / name))))

    monkeypatch.setattr(grid, "run_grid", here)  # in this process
    monkeypatch.setattr(sparse, "mnist_fcn", lambda method: small(method, batch=64))
    experiment, results = sparse.Sparse(values=(0.5, 1.0), steps=(6,)), tmp_path / "results"
    (file,) = experiment.gather(tmp_path / "runs", results, 1, ())
    (figure,) = experiment.finish(tmp_path / "runs", results)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert {(r["method"], r["settings"]["unlock"], r["settings"]["p_update"]) for r in rows} == {
        (*panel, p) for panel in sparse.PANELS for p in (0.5, 1.0)
    }
    assert figure == file.with_suffix(".svg") == results / "feedforward" / "sparse.svg"
    drawn = figure.read_bytes()
    assert b"<svg" in drawn
    assert sparse.draw(file).read_bytes() == drawn
    assert caplog.text == ""
    monkeypatch.setitem(Settings.versions, "dni", 2)
    caplog.set_level(logging.INFO, "synthgrad_lab")
    sparse.draw(file)
    assert "another version of their recipe: dni (version 1, today 2): 4" in caplog.text
