"""Every layer decoupled, on MNIST: the first table of docs/results.md."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from synthgrad_lab.experiments.gathering import gather
from synthgrad_lab.recipes import Settings, mnist_fcn

SEEDS = 3


def cells() -> dict[str, Settings]:
    """All methods at 4 and 6 layers, the paper's linear M, and blind DNI for 10,000 steps; longest first."""
    variants = {"dni-10000": replace(mnist_fcn("dni"), steps=10_000)}
    for layers in (6, 4):
        for method in ("cdni", "dni", "local-loss", "bprop", "no-bprop"):
            variants[f"{method}-{layers}x"] = replace(mnist_fcn(method), layers=layers)
        linear = replace(variants[f"local-loss-{layers}x"], model_depth=0)
        variants[f"local-loss-{layers}x"] = linear
    variants["cdni-linear-4x"] = replace(mnist_fcn("cdni"), model_depth=0)
    return {f"{name}-seed{seed}": replace(s, seed=seed) for name, s in variants.items() for seed in range(SEEDS)}


def reproduce(runs: Path, results: Path, workers: int = 2) -> Path:
    """Run what has not been run, and gather all records' settings and results in one file.

    Args:
        runs: folder of the runs.
        results: folder of the gathered records.
        workers: processes at a time.

    Returns:
        The file of gathered records, one run a line.
    """
    return gather(cells(), runs, results / "every-layer.jsonl", workers)
