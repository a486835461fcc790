from dataclasses import dataclass
from typing import Literal

import pytest

from synthgrad_lab.feedforward.recipes import mnist_fcn
from synthgrad_lab.running.settings import BadSetting, describe, override, words


@dataclass(frozen=True)
class Example:
    count: int = 3
    """How many."""
    rate: float = 0.5
    """How fast,
    in two lines."""
    kind: Literal["round", "square"] = "round"
    """Which."""
    path: str | None = None
    """Where."""
    loud: bool = False
    """Whether."""


@pytest.mark.parametrize(
    ("word", "key", "value"),
    [
        ("count=7", "count", 7),
        ("count=1e4", "count", 10_000),
        ("rate=3e-4", "rate", 3e-4),
        ("kind=square", "kind", "square"),
        ("path=a=b", "path", "a=b"),
        ("path=none", "path", None),
        ("loud=true", "loud", True),
    ],
)
def test_values_take_their_fields_types(word, key, value):
    assert getattr(override(Example(), words([word])), key) == value


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cuont=7"], "did you mean 'count'"),
        (["kind=squrae"], "did you mean 'square'"),
        (["zzz=1"], "there are: count, rate"),
        (["count=many"], "count=many: wanted a whole number"),
        (["count=1.5"], "count=1.5: wanted a whole number"),
        (["count=inf"], "wanted a whole number"),
        (["rate=fast"], "rate=fast: wanted a number"),
        (["loud=perhaps"], "wanted true or false"),
        (["count"], "not of the form key=value"),
        (["=3"], "not of the form key=value"),
        (["count=1", "count=2"], "given twice"),
    ],
)
def test_bad_words_are_answered_with_what_was_meant(arguments, message):
    with pytest.raises(BadSetting, match=message):
        override(Example(), words(arguments))


def test_fields_are_described_by_the_text_below_them():
    assert describe(Example())[:2] == [("count", "3", "How many."), ("rate", "0.5", "How fast, in two lines.")]


def test_every_setting_of_a_recipe_says_what_it_is():
    assert all(text for _, _, text in describe(mnist_fcn()))
