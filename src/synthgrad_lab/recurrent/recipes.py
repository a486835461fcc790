"""Recurrent recipes: a run is a function that returns its settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from synthgrad_lab.recurrent.settings import Method, Settings


def add(method: Method = "dni") -> Settings:
    """An endless stream of bits: y_t ~ Bernoulli(0.5 + 0.5 x_{t-6} - 0.25 x_{t-10}); cross-entropy in nats."""
    return Settings(
        recipe="add", method=method, lr=1e-3, read_out_lr=1e-2, warm_up=0.1, updates=20_000, decay="cosine"
    )


def delay(method: Method = "dni") -> Settings:
    """Say the bit of D steps ago; D grows whenever it is solved. Longest D solved."""
    return Settings(recipe="delay", method=method, units=64, lr=3e-5, read_out_lr=1e-2)


def copy(method: Method = "dni") -> Settings:
    """Copy N random vectors after an episode's first half; N grows whenever it is solved. Longest N solved."""
    return _copying(Settings(recipe="copy", method=method))


def repeat_copy(method: Method = "dni") -> Settings:
    """The same R times over; N and R grow in turn. Longest episode solved: N (R + 1) + 3 steps."""
    return _copying(Settings(recipe="repeat-copy", method=method))


def char_lm(method: Method = "dni") -> Settings:
    """Predict the next character of a text: Penn Treebank's word files, or text=FILE. Bits per character."""
    return Settings(
        recipe="char-lm",
        method=method,
        cell="lstm",
        units=256,
        model_hidden=256,
        batch=64,
        lr=3e-3,
        updates=16_000,
        warm_up=0.1,
        decay="cosine",
        scale=1.0 if method == "bp-lambda" else 0.1,
    )


def seq_mnist(method: Method = "dni") -> Settings:
    """Classify an MNIST digit after its 28 rows; only the last step has a loss. Test error in percent."""
    return Settings(recipe="seq-mnist", method=method, cell="lstm", units=64, lr=1e-3, T=7, updates=12_000)


def line_drawing(method: Method = "dni") -> Settings:
    """Draw a line to one of 7 targets after a cue at the first step; feedback every second step. Squared error."""
    return Settings(recipe="line-drawing", method=method, cell="lstm", units=30, lr=1e-3, T=2, updates=5_000)


def _copying(s: Settings) -> Settings:
    s = replace(s, cell="lstm", units=256, model_hidden=256, batch=64, lr=3e-3, warm_up=0.05)
    if s.method in ("local", "cdni"):
        ahead = 32 if s.recipe == "copy" else 64  # all of them; the first of them
        return replace(s, model_form="critic", model_depth=0, model_lr=1e-2, clip=0.015, ahead=ahead)
    return replace(s, scale=0.1) if s.method in ("dni", "dni-aux") else s


RECIPES: dict[str, Callable[[Method], Settings]] = {
    "add": add,
    "delay": delay,
    "copy": copy,
    "repeat-copy": repeat_copy,
    "char-lm": char_lm,
    "seq-mnist": seq_mnist,
    "line-drawing": line_drawing,
}
