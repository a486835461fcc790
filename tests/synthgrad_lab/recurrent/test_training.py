"""Recurrent runs from end to end: every recipe, method and option; interruptions; lesions; what is refused."""

import copy
import dataclasses
import functools
import math
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from synthgrad import checkpoint, compare
from synthgrad.recurrent.state import pack
from synthgrad_lab.data import load
from synthgrad_lab.recurrent.recipes import RECIPES
from synthgrad_lab.recurrent.settings import METHODS, STREAMS, Settings
from synthgrad_lab.recurrent.training import Sequences
from synthgrad_lab.running.jsonl import to_json
from synthgrad_lab.running.loop import Diverged, Interrupted, recorded, resume, run
from synthgrad_lab.running.record import Record

USUAL = "recipe method T cell seed updates sequences seconds seconds_per_update"
OWN = {
    "add": "cross_entropy floor",
    "delay": "longest bits",
    **dict.fromkeys(("copy", "repeat-copy"), "longest repeats episode_length bits accurate"),
    "char-lm": "test_bits_per_character",
    "seq-mnist": "test_error",
    "line-drawing": "mse",
}
load_once = functools.cache(load)
PASSING = {"seconds", "seconds_per_update", "record"}


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    monkeypatch.setattr("synthgrad_lab.recurrent.tasks.rows.load", load_once)
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat;\n" * 30)

    def make(recipe="add", method="dni", name="run", **changes):
        small = {"width": 4, "model.hidden": 4, "batch": 3, "steps": 12, "run.eval_every": 6}
        usual = {
            **small,
            "T": 3,
            "optimizer.lr": 1e-2,
            "model.lr": 1e-2,
            "task.text": str(text),
            "out": str(tmp_path / name),
        }
        return replace(RECIPES[recipe](method), **{**usual, **changes})

    return make


def weights(module):
    return torch.cat([p.detach().flatten().clone() for p in module.parameters()])


def assert_finite(result):
    numbers = {key: value for key, value in result.items() if isinstance(value, int | float)}
    assert all(math.isfinite(value) for value in numbers.values()), numbers


def after(settings, begin=0, end=None, training=None):
    training = training or Sequences(settings)
    for done in range(begin, end or settings.steps):
        training.step(done)
    return training


WITH_TARGETS = ("local", "cdni")


@pytest.mark.parametrize(
    ("recipe", "method"),
    [(r, m) for r in RECIPES for m in METHODS if not (r in STREAMS and m in WITH_TARGETS)],
)
def test_every_recipe_runs_with_every_method(tiny, recipe, method):
    s = tiny(recipe, method)
    result = run(s)
    assert set(f"{USUAL} {OWN[recipe]}".split()) <= set(result)
    assert (result["recipe"], result["method"], result["T"], result["updates"]) == (recipe, method, 3, 12)
    assert_finite(result)
    assert bool(result["model_parameters"]) == (s.synthetic or method == "local")
    assert bool(result["quality"]) == s.synthetic
    lines = Record(Path(s.out)).read()
    assert [line["kind"] for line in lines] == ["settings", *["point"] * 2, "result"]
    assert recorded(Path(s.out)) == s


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_every_cell_runs_with_two_layers(tiny, cell):
    result = run(tiny(cell=cell, layers=2))
    assert_finite(result)
    gates = {"rnn": 1, "gru": 3, "lstm": 4}[cell]
    assert result["parameters"] == gates * 4 * ((2 + 4 + 2) + (4 + 4 + 2)) + 4 + 1
    state = 4 * 2 * (2 if cell == "lstm" else 1)
    assert result["model_parameters"] == (state + 1) * 4 + (4 + 1) * state


def test_frozen_leaves_the_core_and_moves_the_read_out(tiny):
    s = tiny(method="frozen")
    began = Sequences(s).net.state_dict()
    run(s)
    ended = checkpoint.load(Path(s.out))["trainer"]["net"]
    moved = {name for name in began if not torch.equal(began[name], ended[name])}
    assert moved == {"read_out.weight", "read_out.bias"}


@pytest.mark.parametrize(
    ("recipe", "method", "changes"),
    [
        *[(recipe, method, {}) for recipe in ("add", "copy") for method in ("bptt", "dni", "dni-aux", "bp-lambda")],
        *[(recipe, "dni", {"model.traces": 0.5, "model.context": True}) for recipe in ("add", "copy")],
        *[(recipe, "dni", {}) for recipe in ("delay", "repeat-copy", "char-lm", "seq-mnist", "line-drawing")],
        *[("copy", method, {"model.form": "critic"}) for method in ("local", "cdni")],
        (
            "add",
            "dni",
            {"model.target_every": 2, "optimizer.decay": "cosine", "cell": "lstm", "model.hidden_only": True},
        ),
        ("add", "dni", {"model.use_until": 0.3, "model.learn_until": 0.7, "model.sees": 0.5}),
        ("add", "dni", {"model.trust": True, "optimizer.warm_up": 0.8, "optimizer.read_out_lr": 1e-3}),
    ],
)
def test_an_interrupted_run_ends_bit_for_bit_like_an_uninterrupted_one(tiny, recipe, method, changes):
    changes = {"task.first": 2, **changes}  # copy: 7 steps, in chunks of 3, 3 and 1
    whole, cut = (tiny(recipe, method, name, **changes) for name in ("whole", "cut"))
    run(whole)

    def interrupt(step, measure):
        if step == 4:  # copy: after the first error of the second episode
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match=r"stopped at step [45] of 12; go on with resume="):
        run(cut, interrupt)
    torch.rand(17)  # a resumed run depends on nothing that happened meanwhile
    resume(Path(cut.out))
    (lines_a, state_a), (lines_b, state_b) = told(whole), told(cut)
    assert lines_a == lines_b
    assert state_a.keys() == state_b.keys()
    for name, value in state_a.items():
        assert torch.equal(value, state_b[name]) if isinstance(value, torch.Tensor) else value == state_b[name], (
            name
        )


def told(s):
    """All that a run recorded and learnt, but for times."""
    lines = [line for line in Record(Path(s.out)).read() if line["kind"] in ("point", "result")]
    kept = [{k: v for k, v in line.items() if k not in PASSING} for line in lines]
    return [to_json(line) for line in kept], dict(flat(checkpoint.load(Path(s.out))["trainer"]))


def flat(value, name=""):
    """The leaves of nested dicts and lists, by their place."""
    if isinstance(value, dict | list | tuple):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from flat(item, f"{name}/{key}")
    else:
        yield name, value


@pytest.mark.parametrize(
    "changes",
    [
        {"model.hidden_only": True},
        {"model.sees": 0.5},
        {"model.form": "critic"},
        {"model.form": "critic", "model.sees": 0.5},
        {"model.context": True},
        {"model.context": True, "method": "bp-lambda"},
        {"model.target_every": 2},
        {"model.scale": 0.1},
        {"model.gamma": 0.9},
        {"model.depth": 0},
        {"model.aux_weight": 0.1, "method": "dni-aux"},
        {"model.lam": 0.9, "method": "bp-lambda"},
        {"model.traces": 0.5},
        {"optimizer.clip": 1e-3},
        {"model.unit_factor": 64.0},
    ],
    ids=str,
)
def test_every_option_runs_and_makes_a_difference(tiny, changes):
    plain = tiny(method=changes.get("method", "dni"), cell="lstm", steps=15, **{})
    s = replace(plain, **changes)
    assert_finite(run(s))
    ended = checkpoint.load(Path(s.out))["trainer"]["net"]
    assert not all(torch.equal(value, ended[name]) for name, value in after(plain).net.state_dict().items())


@pytest.mark.parametrize(
    ("recipe", "changes"),
    [
        ("copy", {"model.ahead": 1}),
        ("copy", {"model.form": "regression"}),
        ("copy", {"model.anchor": 0.0}),
        ("copy", {"model.depth": 1}),
        ("line-drawing", {"model.form": "critic"}),
    ],
    ids=str,
)
def test_an_m_that_sees_the_targets_to_come_makes_a_difference(tiny, recipe, changes):
    plain = tiny(recipe, "cdni", steps=15, **{"task.first": 3})
    blind, s = replace(plain, method="dni"), replace(plain, **changes)
    ended = [weights(after(settings).net) for settings in (blind, plain, s)]
    assert not any(torch.equal(ended[a], ended[b]) for a, b in ((0, 1), (0, 2), (1, 2)))


@pytest.mark.parametrize("method", ["local", "cdni"])
@pytest.mark.parametrize(("cell", "only"), [("rnn", None), ("lstm", None), ("lstm", (0,))])
def test_at_a_chunks_end_a_critic_that_learns_from_its_loss_alone_is_the_local_loss(tiny, method, cell, only):
    """One chunk: what the core gets is the loss' own gradient, whichever way it comes."""
    s = tiny(
        "copy",
        method,
        cell=cell,
        **{"task.first": 3, "model.form": "critic", "model.depth": 0, "model.hidden_only": bool(only)},
    )
    training = Sequences(s)
    head = training.head or training.future.interface.gradient_model.head
    torch.manual_seed(0)
    torch.nn.init.normal_(head[-1].weight)
    chunk = training.task.chunk()
    training.state = None
    loss, _ = training._chunk(chunk)
    found = torch.autograd.grad(loss, list(training.net.core.parameters()))

    out, state = training.net(chunk.x)
    guesses = head(pack(state, only=only)).view(s.batch, s.model.ahead, -1)
    _, y, counts = training.task.episode
    assert counts.tolist() == [0] * 5 + [1] * 4  # a start, three vectors, a request; three vectors, an end
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(
        guesses[:, :4], y[5:].transpose(0, 1), reduction="none"
    )
    by_hand = wanted.mean(-1).sum(1).mean() / math.log(2) / s.T + 0 * out.sum()
    for a, b in zip(found, torch.autograd.grad(by_hand, list(training.net.core.parameters())), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("recipe", ["add", "copy", "delay"])
@pytest.mark.parametrize("method", ["dni", "bp-lambda"])
def test_a_probe_leaves_no_trace(tiny, recipe, method):
    s = tiny(recipe, method, steps=15, **{"task.first": 2})
    probed = Sequences(s)
    for done in range(s.steps):
        probed.step(done)
        assert "boundary 1" in probed.quality() or done < 2
    plain = after(s)
    for part in ("net", "models"):
        assert torch.equal(weights(getattr(plain, part)), weights(getattr(probed, part)))
    assert torch.equal(plain.task.chunk().x, probed.task.chunk().x)


def test_a_probe_compares_with_full_backprop_boundary_by_boundary(tiny):
    s = tiny("copy", cell="gru", **{"task.first": 2})  # 7 steps: boundaries after 3 and 6
    training = after(s)
    found = [q for name, q in training.quality().items() if name != "state"]
    training.task.episode = ()
    chunks = [training.task.chunk() for _ in range(3)]
    loss, state, states = 0.0, None, []
    for chunk in chunks:
        out, state = training.net(chunk.x, state)
        states.append(state)
        loss = loss + (training.task.losses(out, chunk.y).mean(1) * chunk.counts).sum() / s.T
    true = torch.autograd.grad(loss, states[:2])
    assert len(found) == 2
    for measured, state, delta in zip(found, states, true, strict=False):
        synthetic = training.future.interface.synthetic_gradient(state[0].detach())
        assert measured == pytest.approx(dataclasses.asdict(compare(synthetic, delta[0])), rel=1e-4, abs=1e-5)


def test_an_r2_that_stays_below_zero_is_told_of_once(tiny, capsys):
    training = after(tiny())
    for error, points, told in ((2.0, 2, 0), (0.5, 1, 0), (2.0, 5, 1), (0.5, 1, 0), (2.0, 3, 1)):
        training.future.agreement.errors.copy_(torch.tensor([error, 1.0]))
        for _ in range(points):
            training.point()
        assert capsys.readouterr().err.count("R² of the synthetic gradient stays below zero") == told


def test_an_update_per_episode_counts_episodes(tiny):
    s = tiny("copy", per="episode", **{"task.first": 2})
    result = run(s)
    assert_finite(result)
    assert result["sequences"] == s.batch * s.steps
    assert (
        after(tiny("copy", **{"task.first": 2})).task.sequences == s.batch * s.steps / 3
    )  # 7 steps in chunks of 3


@pytest.mark.parametrize("method", ["bptt", "dni"])
def test_the_core_warms_up_and_the_read_out_has_a_rate_of_its_own(tiny, method):
    training = Sequences(
        tiny(
            method=method,
            steps=20,
            **{"optimizer.decay": "none", "optimizer.warm_up": 0.5, "optimizer.read_out_lr": 0.02},
        )
    )
    of = {id(p): name for name, p in training.net.named_parameters()}
    for done, core in ((0, 0.0), (5, 0.5e-2), (10, 1e-2), (19, 1e-2)):
        before = weights(training.net.core)
        training.step(done)
        assert torch.equal(weights(training.net.core), before) == (core == 0)
        rates = {of.get(id(p), "model"): g["lr"] for g in training.optimizer.param_groups for p in g["params"]}
        wanted = {name: 0.02 if name.startswith("read_out") else core for name in of.values()}
        assert rates == pytest.approx({**wanted, **({"model": 0.01} if method == "dni" else {})})


@pytest.mark.parametrize("method", ["dni", "dni-aux", "bp-lambda"])
@pytest.mark.parametrize(("lesion", "felt"), [({"model.use_until": 0.5}, False), ({}, True)])
def test_after_use_until_m_no_longer_moves_the_core(tiny, method, lesion, felt):
    s = tiny(method=method, steps=20, **lesion, **{})
    one, other = after(s, end=10), Sequences(s)
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    for p in other.models.parameters():
        torch.nn.init.normal_(p)
    one, other = (after(s, 10, training=training) for training in (one, other))
    assert torch.equal(weights(one.net), weights(other.net)) != felt


@pytest.mark.parametrize("method", ["dni", "dni-aux", "bp-lambda"])
def test_after_learn_until_m_stands_still_and_the_core_does_not(tiny, method):
    s = tiny(method=method, steps=20, **{"model.learn_until": 0.5})
    training = Sequences(s)
    found = [(weights(training.models), weights(training.net))]
    for begin, end in ((0, 10), (10, 20)):
        after(s, begin, end, training)
        found.append((weights(training.models), weights(training.net)))
    (m0, net0), (m1, net1), (m2, net2) = found
    assert not torch.equal(m0, m1)
    assert torch.equal(m1, m2)
    assert not torch.equal(net0, net1)
    assert not torch.equal(net1, net2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"T": 0}, "T=0: it must be a number of at least 1"),
        ({"batch": 0}, "batch=0: it must be a number of at least 1"),
        ({"optimizer.lr": math.nan}, "lr=nan: it must be a number of at least 0"),
        ({"optimizer.lr": math.inf}, "lr=inf: it must be a number of at least 0"),
        ({"optimizer.clip": 0.0}, "clip=0.0: it must be a number of at least 1e-09"),
        ({"model.gamma": 1.5}, "gamma=1.5: it must be from 0 to 1"),
        ({"optimizer.warm_up": 1.5}, "warm_up=1.5: it must be from 0 to 1"),
        ({"optimizer.read_out_lr": -1.0}, "read_out_lr=-1.0: it must be a number of at least 0"),
        ({"model.lam": -0.1}, "lam=-0.1: it must be from 0 to 1"),
        ({"model.beta1": 1.0}, "model_beta1=1.0: it must be from 0 to 0.999999"),
        ({"per": "episode"}, "per=episode: add is a stream without end; per=chunk"),
        ({"model.hidden_only": True}, "only an LSTM has a cell beside its hidden state, not cell=rnn"),
        ({"model.traces": 0.5, "method": "bptt"}, "traces want a regression that sees all: method=dni or dni-aux"),
        (
            {"model.traces": 0.5, "model.form": "critic"},
            "traces want a regression that sees all: method=dni or dni-aux",
        ),
        ({"model.traces": 0.5, "model.sees": 0.5}, "traces want a regression that sees all: method=dni or dni-aux"),
        (
            {"model.traces": 0.5, "method": "bp-lambda"},
            "traces want a regression that sees all: method=dni or dni-aux",
        ),
        ({"method": "cdni", "model.context": True}, "M's context is the targets to come; model_context=false"),
        ({"model.scale": 0.1, "method": "bp-lambda"}, "weighs true and synthetic gradients by lam alone"),
    ],
    ids=str,
)
def test_bad_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Settings(**changes)


@pytest.mark.parametrize(("recipe", "step"), [("add", 1), ("seq-mnist", 4)])
def test_nan_ends_a_run_with_its_record_at_the_first_loss(tiny, monkeypatch, recipe, step):
    def poisoned(s):
        training = Sequences(s)
        torch.nn.init.constant_(training.net.core.weight_hh_l0, math.nan)
        return training

    monkeypatch.setattr("synthgrad_lab.running.loop.training_of", poisoned)
    s = tiny(recipe, T=7)
    with pytest.raises(Diverged, match=f"the loss is nan at step {step}; the record is in"):
        run(s)
    last = Record(Path(s.out)).read()[-1]
    assert (last["kind"], last["step"], last["loss"]) == ("diverged", step, "nan")
