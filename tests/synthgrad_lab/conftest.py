"""Real MNIST, downloaded once into the cache, and tiny runs on it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from synthgrad_lab.data import load
from synthgrad_lab.feedforward.recipes import mnist_fcn
from synthgrad_lab.feedforward.settings import Settings
from synthgrad_lab.running.settings import vary

os.environ["MPLBACKEND"] = "agg"  # a notebook's terminal names another, which may not be installed


@pytest.fixture(scope="session", autouse=True)
def mnist() -> None:
    load("mnist")


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., Settings]:
    """Settings of a run that takes seconds, in its own folder."""

    def make(method: Any = "cdni", name: str = "run", **changes: Any) -> Settings:
        run = {"out": str(tmp_path / name), "run.eval_every": 8, "run.checkpoint_every": 10}
        small = {"steps": 24, "width": 32, "batch": 64, "model.hidden": 8}
        return vary(mnist_fcn(method), {**small, **run, **changes})

    return make
