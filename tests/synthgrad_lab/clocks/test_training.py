"""Training of two networks on two clocks: digits, schedule, updates, interruptions."""

import os
import signal
from pathlib import Path

import pytest
import torch

from synthgrad_lab.clocks.digits import moments
from synthgrad_lab.clocks.schedule import as_text, schedule
from synthgrad_lab.clocks.settings import METHODS
from synthgrad_lab.clocks.training import ClocksTraining
from synthgrad_lab.running.loop import run
from synthgrad_lab.running.stops import Interrupted
from tests.helpers.runs import resume

KEYS = "odd_error threes_error updates_a updates_b samples seconds recipe method T curve record parameters"
PASSING = {"seconds", "record"}


def test_a_rounds_answers_are_counted_from_its_digits():
    x, y = (
        torch.arange(10.0).view(10, 1, 1, 1).expand(10, 1, 28, 28),
        torch.arange(10),
    )  # each image shows its own number
    found = list(moments(x, y, 3, 5, torch.Generator().manual_seed(0)))
    digits = torch.stack([moment.images[:, 0] for moment in found]).long()
    assert [(moment.window, moment.phase) for moment in found] == [(w, p) for w in range(3) for p in range(3)]
    assert digits.unique().numel() > 5
    for t, moment in enumerate(found):
        answered = t % 3 == 2
        assert (moment.odd is not None) == (moment.seen is not None) == answered
        if answered:
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
def test_the_schedule_of_a_method(tiny, method, a, b):
    lines = as_text(schedule(tiny(method))).splitlines()
    assert lines[1:3] == [f"A    {a}", f"B    {b}"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("recurrent", ["truncate", "dni"])
def test_a_run_counts_its_updates_and_samples(tiny, method, recurrent):
    result = run(tiny(method, recurrent=recurrent))
    assert set(KEYS.split()) <= set(result)
    assert result["samples"] == 6 * 2**2 * 4
    assert (result["updates_a"], result["updates_b"]) == (6 if method == "bprop" else 12, 6)
    assert [samples for samples, *_ in result["curve"]] == [48, 96]
    assert 0 <= result["odd_error"] <= 100
    assert (result["model_parameters"] > 0) == (method in ("dni", "cdni") or recurrent == "dni")


def test_only_cut_keeps_the_gradient_of_b_from_the_message(tiny):
    moved = {}
    for method in METHODS:
        training = ClocksTraining(tiny(method, steps=20))
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
    one, other = ClocksTraining(tiny()), ClocksTraining(tiny())
    for done in range(3):
        one.step(done)
        other.step(done)
        assert set(one.point()) >= {"odd_error", "threes_error", "samples"}
    for p, q in zip(one.system.parameters(), other.system.parameters(), strict=True):
        assert torch.equal(p, q)
