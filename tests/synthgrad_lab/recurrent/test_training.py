"""Recurrent runs from end to end: every recipe, method and option."""

import math
from pathlib import Path

import pytest
import torch

from synthgrad import checkpoint
from synthgrad.recurrent.state import pack
from synthgrad_lab.recurrent.recipes import RECIPES
from synthgrad_lab.recurrent.settings import METHODS, STREAMS
from synthgrad_lab.recurrent.training import RecurrentTraining
from synthgrad_lab.running.loop import run
from synthgrad_lab.running.record import Record
from synthgrad_lab.running.settings import vary
from tests.helpers.runs import recorded
from tests.synthgrad_lab.recurrent.trained import after, weights

USUAL = "recipe method T cell seed steps sequences seconds seconds_per_step"
OWN = {
    "add": "cross_entropy floor",
    "delay": "longest bits",
    **dict.fromkeys(("copy", "repeat-copy"), "longest repeats episode_length bits accurate"),
    "char-lm": "test_bits_per_character",
    "seq-mnist": "test_error",
    "line-drawing": "mse",
}
WITH_TARGETS = ("local-loss", "cdni")


def assert_finite(result):
    numbers = {key: value for key, value in result.items() if isinstance(value, int | float)}
    assert all(math.isfinite(value) for value in numbers.values()), numbers


@pytest.mark.parametrize(
    ("recipe", "method"),
    [(r, m) for r in RECIPES for m in METHODS if not (r in STREAMS and m in WITH_TARGETS)],
)
def test_every_recipe_runs_with_every_method(tiny, recipe, method):
    s = tiny(recipe, method)
    result = run(s)
    assert set(f"{USUAL} {OWN[recipe]}".split()) <= set(result)
    assert (result["recipe"], result["method"], result["T"], result["steps"]) == (recipe, method, 3, 12)
    assert_finite(result)
    assert bool(result["model_parameters"]) == (s.synthetic or method == "local-loss")
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
    began = RecurrentTraining(s).net.state_dict()
    run(s)
    ended = checkpoint.load(Path(s.out))["trainer"]["net"]
    moved = {name for name in began if not torch.equal(began[name], ended[name])}
    assert moved == {"read_out.weight", "read_out.bias"}


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
    plain = tiny(method=changes.get("method", "dni"), cell="lstm", steps=15)
    s = vary(plain, changes)
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
    plain = tiny(recipe, "cdni", steps=15, **({"task.first": 3} if recipe == "copy" else {}))
    blind, s = vary(plain, {"method": "dni"}), vary(plain, changes)
    ended = [weights(after(settings).net) for settings in (blind, plain, s)]
    assert not any(torch.equal(ended[a], ended[b]) for a, b in ((0, 1), (0, 2), (1, 2)))


@pytest.mark.parametrize("method", ["local-loss", "cdni"])
@pytest.mark.parametrize(("cell", "only"), [("rnn", None), ("lstm", None), ("lstm", (0,))])
def test_at_a_chunks_end_a_critic_that_learns_from_its_loss_alone_is_the_local_loss(tiny, method, cell, only):
    """One chunk: what the core gets is the loss' own gradient, whichever way it comes."""
    s = tiny(
        "copy",
        method,
        cell=cell,
        **{"task.first": 3, "model.form": "critic", "model.depth": 0, "model.hidden_only": bool(only)},
    )
    training = RecurrentTraining(s)
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


def test_an_update_per_episode_counts_episodes(tiny):
    s = tiny("copy", per="episode", **{"task.first": 2})
    result = run(s)
    assert_finite(result)
    assert result["sequences"] == s.batch * s.steps
    assert (
        after(tiny("copy", **{"task.first": 2})).task.sequences == s.batch * s.steps / 3
    )  # 7 steps in chunks of 3
