"""Every layer decoupled, on MNIST: the README's table, and the first of docs/results/feedforward.md."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from synthgrad_lab.feedforward.recipes import mnist_fcn
from synthgrad_lab.running.experiment import Experiment, Planned
from synthgrad_lab.running.jsonl import Row
from synthgrad_lab.running.settings import vary

SEEDS = 3


@dataclass(frozen=True)
class EveryLayer(Experiment):
    """Decouple every layer of the paper's MNIST net: all methods at 4 and 6 layers, linear models, a long DNI run."""

    name = "every-layer"
    records = "feedforward"

    def runs(self, gathered: Sequence[Row] = ()) -> Iterator[Planned]:
        """The runs, the longest first."""
        variants = {"dni-10000": replace(mnist_fcn("dni"), steps=10_000)}
        for layers in (6, 4):
            for method in ("cdni", "dni", "local-loss", "bprop", "no-bprop"):
                variants[f"{method}-{layers}x"] = replace(mnist_fcn(method), layers=layers)
            linear = {"layers": layers, "model.depth": 0}
            variants[f"local-loss-linear-{layers}x"] = vary(mnist_fcn("local-loss"), linear)
        variants["cdni-linear-4x"] = vary(mnist_fcn("cdni"), {"model.depth": 0})
        for variant, settings in variants.items():
            for seed in range(SEEDS):
                yield Planned({"variant": variant}, replace(settings, seed=seed))
