"""Tiny runs on two clocks."""

import functools

import pytest

from synthgrad_lab.clocks.recipes import clocks
from synthgrad_lab.data import load
from synthgrad_lab.running.settings import vary

load_once = functools.cache(load)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Settings of a run of 6 rounds of 2² digits, in its own folder."""
    monkeypatch.setattr("synthgrad_lab.clocks.training.load", load_once)
    monkeypatch.setattr("synthgrad_lab.clocks.training.STREAMS", 20)

    def make(method="dni", name="run", **changes):
        small = {"T": 2, "width": 8, "model.hidden": 4, "batch": 4, "steps": 6, "run.eval_every": 3}
        return vary(clocks(method), {**small, "out": str(tmp_path / name), **changes})

    return make
