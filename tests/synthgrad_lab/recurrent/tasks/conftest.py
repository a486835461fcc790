"""Small tasks of every recipe."""

import functools

import pytest

from synthgrad_lab.data import load
from synthgrad_lab.recurrent.recipes import RECIPES
from synthgrad_lab.recurrent.tasks import task_of
from synthgrad_lab.running.settings import vary
from tests.synthgrad_lab.recurrent.tasks.chunks import BATCH

load_once = functools.cache(load)


@pytest.fixture(scope="session")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("the quick brown fox and a dog;\n" * 20)
    return str(path)


@pytest.fixture
def make(text, monkeypatch):
    monkeypatch.setattr("synthgrad_lab.recurrent.tasks.rows.load", load_once)

    def make(recipe, T=5, seed=0, **changes):
        first = {"task.first": 3} if "copy" in recipe else {"task.text": text} if recipe == "char-lm" else {}
        return task_of(vary(RECIPES[recipe](), {"T": T, "seed": seed, "batch": BATCH, **first, **changes}))

    return make
