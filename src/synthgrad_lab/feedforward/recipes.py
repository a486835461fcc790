"""Recipes: a run is a function that returns its settings; a variant calls it and changes a field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from synthgrad_lab.feedforward.settings import LABELS, METHODS, PAPER, Method, Settings
from synthgrad_lab.running.settings import vary

__all__ = ["LABELS", "METHODS", "PAPER", "RECIPES", "Method", "Settings", "paper_preset"]


def mnist_fcn(method: Method = "cdni") -> Settings:
    """The paper's fully connected net on MNIST: 256 units, 3,000 steps (12.8 times 60,000 images)."""
    return _tuned(Settings(recipe="mnist-fcn", method=method), _FULL)


def mnist_cnn(method: Method = "cdni") -> Settings:
    """The paper's convolutional net on MNIST: 64 filters of 5x5 pixels."""
    settings = _convolutional(Settings(recipe="mnist-cnn", method=method, net="cnn", width=64, epochs=5))
    return vary(settings, {"model.anchor": 0.01})


def cifar_fcn(method: Method = "cdni") -> Settings:
    """The paper's fully connected net on CIFAR-10: 1,000 units."""
    settings = Settings(recipe="cifar-fcn", method=method, data="cifar10", width=1000, batch=128, epochs=10)
    return _tuned(vary(settings, {"run.precision": "auto", "run.eval_every": 351}), _FULL)


def cifar_cnn(method: Method = "cdni") -> Settings:
    """The paper's convolutional net on CIFAR-10: 128 filters of 5x5 pixels."""
    settings = Settings(recipe="cifar-cnn", method=method, data="cifar10", net="cnn", width=128, epochs=10)
    return _convolutional(settings)


RECIPES: dict[str, Callable[[Method], Settings]] = {
    "mnist-fcn": mnist_fcn,
    "mnist-cnn": mnist_cnn,
    "cifar-fcn": cifar_fcn,
    "cifar-cnn": cifar_cnn,
}

# Blind, M sees little signal and much noise: slow parts, a larger M with batch norm, finer steps.
_BLIND: dict[str, Any] = {"optimizer.lr": 1e-4, "model.depth": 2, "model.norm": True, "model.unit_factor": 8.0}
_FULL: dict[Method, dict[str, Any]] = {"dni": {**_BLIND, "model.hidden": 256}, "critic": {"model.anchor": 0.01}}
_CONVOLUTIONAL: dict[Method, dict[str, Any]] = {
    "dni": {**_BLIND, "model.unit_factor": 4.0, "model.across": 128},
    "cdni": {"model.unit_factor": 4.0, "model.across": 128},
    "critic": {"model.depth": 2, "model.anchor": 3.0},
    "local-loss": {"model.depth": 2},
}
"""What a method's settings are beside those that all share (docs/log.md tells how they were found)."""


def _tuned(s: Settings, by_method: dict[Method, dict[str, Any]]) -> Settings:
    return replace(s, **by_method.get(s.method, {}))


def _convolutional(s: Settings) -> Settings:
    """What the convolutional recipes share; an epoch's point of the curve each."""
    s = vary(
        s,
        {"batch": 128, "model.hidden": s.width, "model.norm": True, "run.precision": "auto", "run.eval_every": 351},
    )
    return _tuned(s, _CONVOLUTIONAL)


def paper_preset(s: Settings) -> Settings:
    """The recipe as the paper ran it: its rates, its models, 500,000 iterations of batch 256.

    Chosen by us where the paper is silent: M's unit (see the library), and its models of critics and heads.

    References:
        Jaderberg et al. 2017, supplement. MNIST's convolutional and CIFAR-10's M are recalled, not checked.
    """
    models: dict[tuple[str, str], dict[str, Any]] = {
        ("fcn", "mnist"): {"model.hidden": 1024, "model.depth": 2 if s.method == "dni" else 0},
        ("fcn", "cifar10"): {"model.hidden": 4000, "model.depth": 1},
        ("cnn", "mnist"): {"model.hidden": 64, "model.depth": 2, "model.kernel": 5},
        ("cnn", "cifar10"): {"model.hidden": 128, "model.depth": 2, "model.kernel": 5},
    }
    return vary(
        s,
        {
            **models.get((s.net, s.data), models[s.net, "mnist"]),
            "preset": "paper",
            "optimizer.lr": 3e-5,
            "model.lr": 3e-5,
            "model.beta1": 0.9,
            "model.beta2": 0.999,
            "model.norm": True,
            "model.across": 0,
            "model.unit_factor": 32.0,
            "optimizer.decay": "steps",
            "batch": 256,
            "epochs": None,
            "steps": 500_000,
            "run.eval_every": 2500,
            "run.checkpoint_every": 2500,
        },
    )
