"""Recurrent recipes: a run is a function that returns its settings."""

from __future__ import annotations

from collections.abc import Callable

from synthgrad_lab.recurrent.settings import Method, Settings
from synthgrad_lab.running.settings import vary


def add(method: Method = "dni") -> Settings:
    """An endless stream of bits: y_t ~ Bernoulli(0.5 + 0.5 x_{t-6} - 0.25 x_{t-10}); cross-entropy in nats."""
    return vary(
        Settings(recipe="add", method=method, steps=20_000),
        {
            "optimizer.lr": 1e-3,
            "optimizer.read_out_lr": 1e-2,
            "optimizer.warm_up": 0.1,
            "optimizer.decay": "cosine",
        },
    )


def delay(method: Method = "dni") -> Settings:
    """Say the bit of D steps ago; D grows whenever it is solved. Longest D solved."""
    return vary(
        Settings(recipe="delay", method=method, width=64), {"optimizer.lr": 3e-5, "optimizer.read_out_lr": 1e-2}
    )


def copy(method: Method = "dni") -> Settings:
    """Copy N random vectors after an episode's first half; N grows whenever it is solved. Longest N solved."""
    return _copying(Settings(recipe="copy", method=method))


def repeat_copy(method: Method = "dni") -> Settings:
    """The same R times over; N and R grow in turn. Longest episode solved: N (R + 1) + 3 steps."""
    return _copying(Settings(recipe="repeat-copy", method=method))


def char_lm(method: Method = "dni") -> Settings:
    """Predict the next character of a text: Penn Treebank's word files, or text=FILE. Bits per character."""
    return vary(
        Settings(recipe="char-lm", method=method, cell="lstm", width=256, batch=64, steps=16_000),
        {
            "model.hidden": 256,
            "optimizer.lr": 3e-3,
            "optimizer.warm_up": 0.1,
            "optimizer.decay": "cosine",
            "model.scale": 1.0 if method == "bp-lambda" else 0.1,
        },
    )


def seq_mnist(method: Method = "dni") -> Settings:
    """Classify an MNIST digit after its 28 rows; only the last step has a loss. Test error in percent."""
    return vary(
        Settings(recipe="seq-mnist", method=method, cell="lstm", width=64, T=7, steps=12_000),
        {"optimizer.lr": 1e-3},
    )


def line_drawing(method: Method = "dni") -> Settings:
    """Draw a line to one of 7 targets after a cue at the first step; feedback every second step. Squared error."""
    return vary(
        Settings(recipe="line-drawing", method=method, cell="lstm", width=30, T=2, steps=5_000),
        {"optimizer.lr": 1e-3},
    )


def _copying(s: Settings) -> Settings:
    s = vary(
        s,
        {
            "cell": "lstm",
            "width": 256,
            "model.hidden": 256,
            "batch": 64,
            "optimizer.lr": 3e-3,
            "optimizer.warm_up": 0.05,
        },
    )
    if s.method in ("local", "cdni"):
        ahead = 32 if s.recipe == "copy" else 64  # all of them; the first of them
        return vary(
            s,
            {
                "model.form": "critic",
                "model.depth": 0,
                "model.lr": 1e-2,
                "optimizer.clip": 0.015,
                "model.ahead": ahead,
            },
        )
    return vary(s, {"model.scale": 0.1}) if s.method in ("dni", "dni-aux") else s


RECIPES: dict[str, Callable[[Method], Settings]] = {
    "add": add,
    "delay": delay,
    "copy": copy,
    "repeat-copy": repeat_copy,
    "char-lm": char_lm,
    "seq-mnist": seq_mnist,
    "line-drawing": line_drawing,
}
