"""Chunks of every task: their shapes, and data that depends neither on T nor on an interruption."""

import copy
import math

import pytest
import torch

from synthgrad_lab.recurrent.recipes import RECIPES
from tests.synthgrad_lab.recurrent.tasks.chunks import BATCH, joined, steps

LENGTHS = {"copy": 9, "repeat-copy": 9, "seq-mnist": 28, "line-drawing": 10}  # N = 3, R = 1
SEEN = {"add": 2, "delay": 1, "copy": 10, "repeat-copy": 10, "char-lm": 21, "seq-mnist": 28, "line-drawing": 1}
SAID = {"add": 1, "delay": 1, "copy": 9, "repeat-copy": 9, "char-lm": 21, "seq-mnist": 10, "line-drawing": 2}
every_task = pytest.mark.parametrize("recipe", RECIPES)


def same(a, b):
    return all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


@every_task
def test_chunks_have_the_promised_shapes(make, recipe):
    task = make(recipe, T=4)
    left, before = LENGTHS.get(recipe, 10**6), task.sequences
    assert (task.inputs, task.outputs) == (SEEN[recipe], SAID[recipe])
    for _ in range(5):
        chunk, T = task.chunk(), min(4, left)
        left -= T
        assert chunk.x.shape == (T, BATCH, task.inputs)
        assert chunk.y.shape[:2] == (T, BATCH)
        assert chunk.counts.shape == (T,)
        assert task.losses(torch.zeros(T, BATCH, task.outputs), chunk.y).shape == (T, BATCH)
        assert chunk.ends == (left == 0)
        left = left or LENGTHS[recipe]
    begun = math.ceil(5 / math.ceil(LENGTHS[recipe] / 4)) if task.episodic else 0
    assert task.sequences == before + begun * BATCH


@pytest.mark.parametrize("T", [1, 3, 10, 40])
@every_task
def test_data_does_not_depend_on_where_it_is_cut(make, recipe, T):
    cut, whole = (joined(steps(make(recipe, size), 60)) for size in (T, 60))
    length = min(len(cut[0]), len(whole[0]))
    assert length >= 60
    assert same([part[:length] for part in cut], [part[:length] for part in whole])


@every_task
def test_a_task_continues_from_its_state(make, recipe):
    task, other = make(recipe), make(recipe, seed=1)
    steps(task, 12)
    task.chunk()  # an episode is under way
    state = copy.deepcopy(task.state_dict())
    later = joined(steps(task, 70))
    other.load_state_dict(state)
    assert same(joined(steps(other, 70)), later)
    assert other.sequences == task.sequences
    assert not torch.equal(make(recipe, T=9).chunk().x, make(recipe, T=9, seed=1).chunk().x)


@pytest.mark.parametrize(("recipe", "window", "length"), [("delay", 50, "delay"), ("copy", 20, "n")])
def test_a_curriculum_continues_from_its_state(make, recipe, window, length):
    task, other = make(recipe), make(recipe)
    for _ in range(window - 1):
        task.observe_loss(0.0, 5, True)
    other.load_state_dict(copy.deepcopy(task.state_dict()))
    other.observe_loss(0.0, 5, True)
    assert getattr(other, length) == getattr(task, length) + 1
    assert other.recent == []
