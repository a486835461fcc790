"""Recurrent recipes: functions of the method that return settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from synthgrad_lab.recurrent.settings import TASKS, Method, Settings, Task
from synthgrad_lab.running.settings import vary

USUAL: Method = "dni"


def add(method: Method = USUAL) -> Settings:
    """An endless stream of bits: y_t ~ Bernoulli(0.5 + 0.5 x_{t-6} - 0.25 x_{t-10}); cross-entropy in nats."""
    more = {"steps": 20_000, "optimizer.read_out_lr": 1e-2, "optimizer.warm_up": 0.1, "optimizer.decay": "cosine"}
    return _settings("add", method, {"optimizer.lr": 1e-3, **more})


def delay(method: Method = USUAL) -> Settings:
    """Repeat the bit of D steps ago; D grows whenever it is solved. Longest D solved."""
    return _settings("delay", method, {"width": 64, "optimizer.lr": 3e-5, "optimizer.read_out_lr": 1e-2})


def copy(method: Method = USUAL) -> Settings:
    """Repeat N random vectors after the last of them; N grows whenever it is solved. Longest N solved."""
    return _copying("copy", method, ahead=32)  # all targets of an episode


def repeat_copy(method: Method = USUAL) -> Settings:
    """The same R times over; N and R grow in turn. Longest episode solved: N (R + 1) + 3 steps."""
    return _copying("repeat-copy", method, ahead=64)  # an episode's first targets


def char_lm(method: Method = USUAL) -> Settings:
    """Predict the next character of a text: Penn Treebank's word files, or any file. Bits per character."""
    net = {"cell": "lstm", "width": 256, "batch": 64, "steps": 16_000}
    rates = {"optimizer.lr": 3e-3, "optimizer.warm_up": 0.1, "optimizer.decay": "cosine"}
    scale = 1.0 if method == "bp-lambda" else 0.1
    return _settings("char-lm", method, {**net, **rates, "model.hidden": 256, "model.scale": scale})


def seq_mnist(method: Method = USUAL) -> Settings:
    """Classify an MNIST digit after its 28 rows; only the last step has a loss. Test error in percent."""
    net = {"cell": "lstm", "width": 64, "T": 7, "steps": 12_000}
    return _settings("seq-mnist", method, {**net, "optimizer.lr": 1e-3})


def line_drawing(method: Method = USUAL) -> Settings:
    """Draw a line to one of 7 targets after a cue at the first step; feedback every second step. Squared error."""
    net = {"cell": "lstm", "width": 30, "T": 2, "steps": 5_000}
    return _settings("line-drawing", method, {**net, "optimizer.lr": 1e-3})


def _settings(recipe: str, method: Method, changes: dict[str, Any]) -> Settings:
    return vary(Settings(recipe=recipe, method=method, task=TASKS.get(recipe, Task)()), changes)


def _copying(recipe: str, method: Method, ahead: int) -> Settings:
    net = {"cell": "lstm", "width": 256, "batch": 64, "model.hidden": 256}
    rates = {"optimizer.lr": 3e-3, "optimizer.warm_up": 0.05}
    changes: dict[str, Any] = {**net, **rates}
    if method in ("local-loss", "cdni"):
        critic = {"model.form": "critic", "model.depth": 0, "model.lr": 1e-2, "model.ahead": ahead}
        changes |= {**critic, "optimizer.clip": 0.015}
    elif method in ("dni", "dni-aux"):
        changes["model.scale"] = 0.1
    return _settings(recipe, method, changes)


RECIPES: dict[str, Callable[[Method], Settings]] = {
    recipe.__name__.replace("_", "-"): recipe
    for recipe in (add, delay, copy, repeat_copy, char_lm, seq_mnist, line_drawing)
}
