"""Tiny recurrent runs."""

import functools

import pytest

from synthgrad_lab.data import load
from synthgrad_lab.recurrent.recipes import RECIPES
from synthgrad_lab.running.settings import vary

load_once = functools.cache(load)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Settings of a run of 12 updates in chunks of 3 steps, in its own folder."""
    monkeypatch.setattr("synthgrad_lab.recurrent.tasks.rows.load", load_once)
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat;\n" * 30)

    def make(recipe="add", method="dni", name="run", **changes):
        small = {"T": 3, "width": 4, "batch": 3, "steps": 12, "model.hidden": 4, "run.eval_every": 6}
        rates = {"optimizer.lr": 1e-2, "model.lr": 1e-2}
        data = {"task.text": str(text)} if recipe == "char-lm" else {}
        return vary(RECIPES[recipe](method), {**small, **rates, **data, "out": str(tmp_path / name), **changes})

    return make
