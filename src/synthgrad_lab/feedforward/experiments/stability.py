"""Settings for the start and the stability of training, each changed alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from synthgrad_lab.feedforward.recipes import mnist_fcn
from synthgrad_lab.running.experiment import Experiment, Planned
from synthgrad_lab.running.jsonl import Row
from synthgrad_lab.running.settings import vary

SEEDS = 2
BASES = {
    "cdni": replace(mnist_fcn("cdni"), layers=6),
    "dni": mnist_fcn("dni"),
    "critic": replace(mnist_fcn("critic"), layers=6),
}
"""Networks on which a change can show: deep with the label, or without it."""
CHANGES: dict[str, dict[str, Any]] = {
    "as-it-is": {},
    "warmup-200": {"mixing.warm_up": 200},
    "lam-0.5-to-0": {"unlock": "fused", "mixing.lam": (0.5,), "mixing.lam_end": (0.0,)},
    "lam-0.1": {"unlock": "fused", "mixing.lam": (0.1,)},
    "target-every-10": {"model.target_every": 10},
    "target-every-100": {"model.target_every": 100},
    "clip-1": {"optimizer.clip": 1.0},
    "clip-0.1": {"optimizer.clip": 0.1},
    "model-lr-x3": {"model.lr": 3e-3},
    "model-lr-x0.3": {"model.lr": 3e-4},
    "model-betas-0.9-0.999": {"model.beta1": 0.9, "model.beta2": 0.999},
}


@dataclass(frozen=True)
class Stability(Experiment):
    """Change each setting for start-up and stability alone, and compare errors on validation images."""

    name = "stability"
    records = "feedforward"

    def runs(self, gathered: Sequence[Row] = ()) -> Iterator[Planned]:
        """Every change to every base, with all seeds."""
        for seed in range(SEEDS):
            for base, settings in BASES.items():
                for change, changes in CHANGES.items():
                    yield Planned({"base": base, "change": change}, vary(settings, {"seed": seed, **changes}))
