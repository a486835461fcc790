"""Real MNIST, fetched once into the cache, and tiny runs on it."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from synthgrad_lab.data import load
from synthgrad_lab.feedforward.recipes import Settings, mnist_fcn

os.environ["MPLBACKEND"] = "agg"  # a notebook's terminal names another, which may not be installed here


@pytest.fixture(scope="session", autouse=True)
def mnist() -> None:
    load("mnist")


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., Settings]:
    """Settings of a run of seconds, in its own folder."""

    def make(method: Any = "cdni", name: str = "run", **changes: Any) -> Settings:
        small = {
            "steps": 24,
            "width": 32,
            "batch": 64,
            "run.eval_every": 8,
            "run.checkpoint_every": 10,
            "model.hidden": 8,
        }
        return replace(mnist_fcn(method), **{**small, "out": str(tmp_path / name), **changes})

    return make
