"""Every layer decoupled, on MNIST: the first table of docs/results.md."""

from __future__ import annotations

from dataclasses import replace

from synthgrad_lab.feedforward.recipes import Settings, mnist_fcn
from synthgrad_lab.running.settings import vary

SEEDS = 3


def cells() -> dict[str, Settings]:
    """All methods at 4 and 6 layers, the paper's linear M, and blind DNI for 10,000 steps; longest first."""
    variants = {"dni-10000": replace(mnist_fcn("dni"), steps=10_000)}
    for layers in (6, 4):
        for method in ("cdni", "dni", "local-loss", "bprop", "no-bprop"):
            variants[f"{method}-{layers}x"] = replace(mnist_fcn(method), layers=layers)
        linear = vary(variants[f"local-loss-{layers}x"], {"model.depth": 0})
        variants[f"local-loss-{layers}x"] = linear
    variants["cdni-linear-4x"] = vary(mnist_fcn("cdni"), {"model.depth": 0})
    return {f"{name}-seed{seed}": replace(s, seed=seed) for name, s in variants.items() for seed in range(SEEDS)}
