"""Interrupted and diverged recurrent runs."""

import math
import os
import signal
from pathlib import Path

import pytest
import torch

from synthgrad import checkpoint
from synthgrad_lab.recurrent.training import RecurrentTraining
from synthgrad_lab.running.jsonl import to_json
from synthgrad_lab.running.loop import run
from synthgrad_lab.running.record import Record
from synthgrad_lab.running.stops import Diverged, Interrupted
from tests.helpers.runs import resume

PASSING = {"seconds", "seconds_per_step", "record"}
GROWING = ("delay", "copy", "repeat-copy")


@pytest.mark.parametrize(
    ("recipe", "method", "changes"),
    [
        *[(recipe, method, {}) for recipe in ("add", "copy") for method in ("bptt", "dni", "dni-aux", "bp-lambda")],
        *[(recipe, "dni", {"model.traces": 0.5, "model.context": True}) for recipe in ("add", "copy")],
        *[(recipe, "dni", {}) for recipe in ("delay", "repeat-copy", "char-lm", "seq-mnist", "line-drawing")],
        *[("copy", method, {"model.form": "critic"}) for method in ("local-loss", "cdni")],
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
    if recipe in GROWING:
        changes = {"task.first": 2, **changes}  # copy: 7 steps, in chunks of 3, 3 and 1
    whole, cut = (tiny(recipe, method, name, **changes) for name in ("whole", "cut"))
    run(whole)

    def interrupt(step, measure):
        if step == 4:  # copy: after the first error of the second episode
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match=r"stopped at step [45] of 12; resume with --resume "):
        run(cut, interrupt)
    torch.rand(17)  # a resumed run does not depend on what happened meanwhile
    resume(Path(cut.out))
    (lines_a, state_a), (lines_b, state_b) = recorded_state(whole), recorded_state(cut)
    assert lines_a == lines_b
    assert state_a.keys() == state_b.keys()
    for name, value in state_a.items():
        assert torch.equal(value, state_b[name]) if isinstance(value, torch.Tensor) else value == state_b[name], (
            name
        )


def recorded_state(s):
    """Everything that a run recorded and learned, except times."""
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


@pytest.mark.parametrize(("recipe", "step"), [("add", 1), ("seq-mnist", 4)])
def test_nan_ends_a_run_with_its_record_at_the_first_loss(tiny, monkeypatch, recipe, step):
    def poisoned(s):
        training = RecurrentTraining(s)
        torch.nn.init.constant_(training.net.core.weight_hh_l0, math.nan)
        return training

    monkeypatch.setattr("synthgrad_lab.recurrent.training.start", poisoned)
    s = tiny(recipe, T=7)
    with pytest.raises(Diverged, match=f"the loss is nan at step {step}; the record is in"):
        run(s)
    last = Record(Path(s.out)).read()[-1]
    assert (last["kind"], last["step"], last["loss"]) == ("diverged", step, "nan")
