"""The main job: every layer of the paper's MNIST net decoupled, beside backprop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from synthgrad_lab.feedforward.bench.step import relative_cost
from synthgrad_lab.feedforward.recipes import LABELS, PAPER, Settings, mnist_fcn
from synthgrad_lab.running.grid import run_cells
from synthgrad_lab.running.record import note


def cells(steps: int, seeds: int, data: Any = "mnist", data_dir: str | None = None) -> dict[str, Settings]:
    """Four methods, each with every seed; slow methods first, so that the two workers end together."""
    order = sorted(PAPER, key=["dni", "cdni", "bprop", "no-bprop"].index)
    return {
        f"{method}-seed{seed}": replace(mnist_fcn(method), steps=steps, seed=seed, data=data, data_dir=data_dir)
        for method in order
        for seed in range(seeds)
    }


def demo(
    folder: Path,
    steps: int = 3000,
    seeds: int = 3,
    workers: int = 2,
    data: Any = "mnist",
    data_dir: str | None = None,
) -> tuple[list[Path], dict[str, float]]:
    """Train all cells and measure what a step costs.

    Args:
        folder: where the runs go; a second call goes on with what is there.
        steps: per run.
        seeds: runs per method.
        workers: processes at a time.
        data: mnist or fashion-mnist.
        data_dir: a folder with the data's files.

    Returns:
        The runs' folders, and each method's seconds per step relative to Bprop, measured interleaved.
    """
    todo = cells(steps, seeds, data, data_dir)
    run_cells(todo, folder, workers)
    note("measuring what a step costs, one method after the other in turn ...")
    cost = relative_cost({LABELS[method]: mnist_fcn(method) for method in PAPER}, against="Bprop")
    return [folder / name for name in todo], cost
