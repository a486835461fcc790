"""Sparse updates: what is left of learning when each layer is updated only now and then (the paper's Fig. 7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure

from synthgrad_lab.config import SHOWN, Method, Settings
from synthgrad_lab.experiments.cells import gather
from synthgrad_lab.figures import METHOD, sheet, svg
from synthgrad_lab.recipes import mnist_fcn
from synthgrad_lab.record import read_lines
from synthgrad_lab.record import replace as write

VALUES = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
PANELS: dict[tuple[Method, str], str] = {
    ("dni", "update"): "update-unlocked",
    ("dni", "complete"): "completely unlocked",
    ("cdni", "update"): "update-unlocked",
    ("cdni", "complete"): "completely unlocked",
}


def cells(values: Sequence[float] = VALUES, steps: int = 3000, seeds: int = 1) -> dict[str, Settings]:
    """With and without labels, update-unlocked and completely unlocked, every probability; equal iterations."""
    return {
        f"{method}-{unlock}-p{p:g}-seed{seed}": replace(
            mnist_fcn(method), unlock=unlock, p_update=p, steps=steps, seed=seed, eval_every=max(1, steps // 6)
        )
        for method, unlock in PANELS
        for p in sorted(values, reverse=True)
        for seed in range(seeds)
    }


def sweep(
    folder: Path, file: Path, values: Sequence[float] = VALUES, steps: int = 3000, seeds: int = 1, workers: int = 2
) -> Path:
    """Run what has not been run, gather the records, draw the figure.

    Args:
        folder: of the runs.
        file: the gathered records; the figure goes beside it, as .svg.
        values: of p_update.
        steps: of each run.
        seeds: runs per value.
        workers: processes at a time.

    Returns:
        The figure's file.
    """
    gather(cells(values, steps, seeds), folder, file, workers)
    return draw(file)


def draw(file: Path) -> Path:
    """The figure of gathered records, beside them."""
    rows = read_lines(file)
    path = file.with_suffix(".svg")
    write(path, svg(figure(rows)))
    return path


def figure(rows: list[dict]) -> Figure:
    """Four panels: test error over p_update, a dot per run, for each method and kind of unlock.

    Args:
        rows: gathered records.
    """
    drawn, axes = sheet(8.6, 6.2, 2, 2, sharex=True, sharey="row")
    for ax, ((method, unlock), title) in zip(axes, PANELS.items(), strict=True):
        mine = [r for r in rows if r["method"] == method and r["settings"]["unlock"] == unlock]
        p = [r["settings"]["p_update"] for r in mine]
        ax.plot(
            p, [r["test_error"] for r in mine], "o", color=METHOD[method], label=f"after {mine[0]['steps']:,} steps"
        )
        ax.set_title(f"{SHOWN[method]}, {title}", loc="left", fontsize=10, fontweight="bold")
        ax.set(xlim=(0, 1.03), ylim=(0, None))
    for ax in axes[2:]:
        ax.set_xlabel("p_update: chance of each layer's update in a step")
    for ax in axes[::2]:
        ax.set_ylabel("test error, %")
    return drawn
