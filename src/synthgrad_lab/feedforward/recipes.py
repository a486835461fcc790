"""Feed-forward recipes: a recipe is a function of the method that returns settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from synthgrad_lab.feedforward.settings import METHODS, TRAINING, Method, Settings
from synthgrad_lab.running.settings import vary

USUAL: Method = "cdni"
"""A recipe's method without a choice."""


def mnist_fcn(method: Method = USUAL) -> Settings:
    """The paper's fully connected net on MNIST: 256 units, 3,000 steps (12.8 times 60,000 images)."""
    return _tuned(Settings(recipe="mnist-fcn", method=method), _FULL)


def mnist_cnn(method: Method = USUAL) -> Settings:
    """The paper's convolutional net on MNIST: 64 filters of 5x5 pixels."""
    settings = _convolutional(Settings(recipe="mnist-cnn", method=method, net="cnn", width=64, epochs=5))
    return vary(settings, {"model.anchor": 0.01})


def cifar_fcn(method: Method = USUAL) -> Settings:
    """The paper's fully connected net on CIFAR-10: 1,000 units."""
    settings = Settings(recipe="cifar-fcn", method=method, data="cifar10", width=1000, batch=128, epochs=10)
    return _tuned(vary(settings, _LARGE), _FULL)


def cifar_cnn(method: Method = USUAL) -> Settings:
    """The paper's convolutional net on CIFAR-10: 128 filters of 5x5 pixels."""
    s = Settings(recipe="cifar-cnn", method=method, data="cifar10", net="cnn", width=128, epochs=10)
    return _convolutional(s)


RECIPES: dict[str, Callable[[Method], Settings]] = {
    "mnist-fcn": mnist_fcn,
    "mnist-cnn": mnist_cnn,
    "cifar-fcn": cifar_fcn,
    "cifar-cnn": cifar_cnn,
}

_LARGE = {"run.precision": "auto", "run.eval_every": 351}
"""For the slow networks: fast arithmetic, and one point of the curve per epoch of CIFAR-10."""
# Without the label M sees little signal and much noise: slow layers, a larger M with batch norm, finer steps of M.
_BLIND = {"optimizer.lr": 1e-4, "model.depth": 2, "model.norm": True, "model.unit_factor": 8.0}
_FULL: dict[Method, dict[str, Any]] = {"dni": {**_BLIND, "model.hidden": 256}, "critic": {"model.anchor": 0.01}}
"""Each method's own settings on fully connected networks; docs/log.md reports how they were found."""
_CONVOLUTIONAL: dict[Method, dict[str, Any]] = {
    "dni": {**_BLIND, "model.unit_factor": 4.0, "model.across": 128},
    "cdni": {"model.unit_factor": 4.0, "model.across": 128},
    "critic": {"model.depth": 2, "model.anchor": 3.0},
    "local-loss": {"model.depth": 2},
}
"""The same on convolutional networks."""


def _tuned(s: Settings, by_method: Mapping[Method, dict[str, Any]]) -> Settings:
    return vary(s, by_method.get(s.method, {}))


def _convolutional(s: Settings) -> Settings:
    return _tuned(vary(s, {"batch": 128, "model.hidden": s.width, "model.norm": True, **_LARGE}), _CONVOLUTIONAL)


def defaults(recipe: str, chosen: Mapping[str, str]) -> Settings:
    """A recipe's settings, given the choices on which the other defaults depend: settings by name, as texts.

    ``method``, ``data``, ``preset`` and ``steps`` matter. A value that is not valid is ignored: the command refuses it.
    """
    method, data = chosen.get("method"), chosen.get("data")
    settings = RECIPES[recipe](method if method in METHODS else USUAL)
    if data in TRAINING:
        settings = vary(settings, {"data": data})
    if chosen.get("preset") == "paper":
        settings = paper_preset(settings)
    return replace(settings, epochs=None) if "steps" in chosen else settings


def paper_preset(s: Settings) -> Settings:
    """The recipe as the paper ran it: its rates, its models, 500,000 iterations of batch 256.

    Where the paper gives no value we chose one: M's unit (see the library), and the models of critics and heads.

    References:
        Jaderberg et al. 2017, supplement. MNIST's convolutional and CIFAR-10's M are recalled, not checked.
    """
    models: dict[tuple[str, str], dict[str, Any]] = {
        ("fcn", "mnist"): {"model.hidden": 1024, "model.depth": 2 if s.method == "dni" else 0},
        ("fcn", "cifar10"): {"model.hidden": 4000, "model.depth": 1},
        ("cnn", "mnist"): {"model.hidden": 64, "model.depth": 2, "model.kernel": 5},
        ("cnn", "cifar10"): {"model.hidden": 128, "model.depth": 2, "model.kernel": 5},
    }
    common = {
        **{"preset": "paper", "batch": 256, "epochs": None, "steps": 500_000},
        **{"optimizer.lr": 3e-5, "optimizer.decay": "steps"},
        **{"model.lr": 3e-5, "model.beta1": 0.9, "model.beta2": 0.999},
        **{"model.norm": True, "model.across": 0, "model.unit_factor": 32.0},
        **{"run.eval_every": 2500, "run.checkpoint_every": 2500},
    }
    return vary(s, {**models.get((s.net, s.data), models[s.net, "mnist"]), **common})
