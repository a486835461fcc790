"""The main job: every layer of the paper's MNIST net decoupled, beside backpropagation."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from synthgrad_lab.feedforward.recipes import mnist_fcn
from synthgrad_lab.feedforward.settings import LABELS, PAPER

log = logging.getLogger(__name__)


def demo(
    folder: Path, steps: int, seeds: int, workers: int, data: Any, data_dir: str | None
) -> tuple[list[Path], dict[str, float]]:
    """Run the paper's four methods with all seeds; a second call resumes the runs.

    Returns:
        The runs' folders, and each method's seconds per step relative to Bprop's, measured in turn.
    """
    from synthgrad_lab.feedforward.bench.step import relative_cost
    from synthgrad_lab.running.grid import run_grid

    todo = {
        f"{method}-seed{seed}": replace(mnist_fcn(method), steps=steps, seed=seed, data=data, data_dir=data_dir)
        for method in sorted(PAPER, key=["dni", "cdni", "bprop", "no-bprop"].index)  # the slowest first
        for seed in range(seeds)
    }
    run_grid(todo, folder, workers)
    log.info("measuring the time of a step, one method after the other in turn ...")
    cost = relative_cost({LABELS[method]: mnist_fcn(method) for method in PAPER})
    return [folder / name for name in todo], cost
