"""Recipes: a run is a function that returns its settings; a variant calls it and changes a field."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

Method = Literal["no-bprop", "bprop", "local-loss", "dni", "cdni"]
METHODS: tuple[Method, ...] = ("no-bprop", "bprop", "local-loss", "dni", "cdni")
PAPER: tuple[Method, ...] = ("no-bprop", "bprop", "dni", "cdni")
SHOWN = {"no-bprop": "No Bprop", "bprop": "Bprop", "local-loss": "Local loss", "dni": "DNI", "cdni": "cDNI"}


@dataclass(frozen=True)
class Settings:
    """All that decides a feed-forward run."""

    recipe: str = "mnist-fcn"
    """The recipe that these settings come from."""
    method: Method = "cdni"
    """no-bprop trains the top layer only; bprop all; local-loss gives each layer a linear classifier of its own;
    dni and cdni put an interface between every two layers, blind or with the label."""
    data: Literal["mnist", "fashion-mnist"] = "mnist"
    """The images."""
    data_dir: str | None = None
    """A folder with the data's files; else the cache, else a download."""
    layers: int = 4
    """Layers, the output layer counted."""
    width: int = 256
    """Hidden units of a layer."""
    steps: int = 3000
    """Training steps (updates of each layer that learns)."""
    batch: int = 256
    """Examples per step."""
    lr: float = 1e-3
    """Adam's learning rate for the layers, decayed to zero along a half cosine."""
    model_lr: float = 1e-3
    """The same for the gradient models."""
    model_hidden: int = 64
    """Units of each hidden layer of a gradient model."""
    model_depth: int = 1
    """Hidden layers of a gradient model; 0 is linear."""
    model_norm: bool = False
    """Batch normalisation inside the gradient models."""
    model_beta1: float = 0.5
    """Adam's beta1 for the gradient models: with more momentum they lag behind the layers that they must follow."""
    model_beta2: float = 0.99
    """Adam's beta2 for the gradient models."""
    unit_factor: float = 32.0
    """A gradient model's unit in root mean squares of the gradient; larger learns faster, and less finely."""
    unlock: Literal["update", "fused"] = "update"
    """update: each layer is updated before the next one runs. fused: one graph, gradients decoupled only."""
    lam: float = 0.0
    """BP(lambda): share of the true gradient that a fused interface passes on."""
    seed: int = 0
    """Seeds the weights and the order of the data."""
    eval_every: int = 250
    """Steps between points of the curve (validation error, quality of the synthetic gradients)."""
    checkpoint_every: int = 500
    """Steps between checkpoints."""
    threads: int = 1
    """Torch threads."""
    device: str = "cpu"
    """Where it runs: cpu, cuda, cuda:1, mps."""
    out: str | None = None
    """The run's folder; the default is a new one under runs/."""

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        least = {"layers": 2, "width": 1, "steps": 1, "batch": 2, "model_hidden": 1, "model_depth": 0}
        least |= {
            "eval_every": 1,
            "checkpoint_every": 1,
            "threads": 1,
            "seed": 0,
            "lr": 0,
            "model_lr": 0,
            "unit_factor": 1e-9,
        }
        for name, bound in least.items():
            value = getattr(self, name)
            if not bound <= value < math.inf:  # NaN is refused, too
                raise ValueError(f"{name}={value}: it must be a number of at least {bound}")
        for name in ("model_beta1", "model_beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: it must be at least 0 and below 1")
        if not 0 <= self.lam <= 1:
            raise ValueError(f"lam={self.lam}: it must be from 0 to 1")
        if self.lam and self.unlock != "fused":
            raise ValueError(
                "lam mixes in the true gradient, which an unlocked layer does not wait for: unlock=fused"
            )


def mnist_fcn(method: Method = "cdni") -> Settings:
    """The paper's fully connected net on MNIST, in 3,000 steps instead of 500,000."""
    settings = Settings(recipe="mnist-fcn", method=method)
    if method == "dni":
        # Blind, M sees little signal and much noise: slow parts, a larger M with batch norm, finer steps.
        large = {"model_hidden": 256, "model_depth": 2, "model_norm": True, "unit_factor": 8.0}
        return replace(settings, lr=1e-4, **large)
    return settings


RECIPES: dict[str, Callable[[Method], Settings]] = {"mnist-fcn": mnist_fcn}
