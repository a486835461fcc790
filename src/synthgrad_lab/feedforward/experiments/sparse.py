"""Sparse updates: what is left of learning when each layer is updated only now and then (the paper's Fig. 7)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from synthgrad.checkpoint import write_atomically
from synthgrad_lab.feedforward.figures import METHOD
from synthgrad_lab.feedforward.recipes import mnist_fcn
from synthgrad_lab.feedforward.settings import LABELS, Method, Settings
from synthgrad_lab.reporting.figures import shade, sheet, svg
from synthgrad_lab.reporting.statistics import newest
from synthgrad_lab.running.gather import gather
from synthgrad_lab.running.jsonl import read_lines
from synthgrad_lab.running.record import note
from synthgrad_lab.running.settings import vary
from synthgrad_lab.running.versions import split, told

VALUES = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
STEPS = (600, 3000)
PANELS: dict[tuple[Method, str], str] = {
    ("dni", "update"): "update-unlocked",
    ("dni", "complete"): "completely unlocked",
    ("cdni", "update"): "update-unlocked",
    ("cdni", "complete"): "completely unlocked",
}


def cells(values: Sequence[float] = VALUES, steps: Sequence[int] = STEPS, seeds: int = 1) -> dict[str, Settings]:
    """With and without labels, update-unlocked and completely unlocked, every probability and length."""
    return {
        f"{method}-{unlock}-p{p:g}-{n}-seed{seed}": vary(
            mnist_fcn(method),
            {"unlock": unlock, "p_update": p, "steps": n, "seed": seed, "run.eval_every": max(1, n // 3)},
        )
        for n in steps
        for method, unlock in PANELS
        for p in sorted(values, reverse=True)
        for seed in range(seeds)
    }


def sweep(
    folder: Path,
    file: Path,
    values: Sequence[float] = VALUES,
    steps: Sequence[int] = STEPS,
    seeds: int = 1,
    workers: int = 2,
) -> Path:
    """Run what has not been run, gather the records, draw the figure.

    Args:
        folder: of the runs.
        file: the gathered records; the figure goes beside it, as .svg.
        values: of p_update.
        steps: lengths of the runs.
        seeds: runs per value.
        workers: processes at a time.

    Returns:
        The figure's file.
    """
    gather(cells(values, steps, seeds), folder, file, workers)
    return draw(file)


def draw(file: Path) -> Path:
    """The figure of gathered records, beside them."""
    rows = newest(read_lines(file))
    if older := split(rows)[1]:
        note(f"the figure has records of another version of their recipe: {told(older)}")
    path = file.with_suffix(".svg")
    write_atomically(path, svg(figure(rows)))
    return path


def figure(rows: list[dict]) -> Figure:
    """Four panels, one per method and kind of unlock: test error over p_update, a dot per run, a shade per length.

    Args:
        rows: gathered records.
    """
    drawn, axes = sheet(8.6, 6.2, 2, 2, sharex=True, sharey="row")
    for ax, ((method, unlock), title) in zip(axes, PANELS.items(), strict=True):
        mine = [r for r in rows if r["method"] == method and r["settings"]["unlock"] == unlock]
        lengths = sorted({r["steps"] for r in mine})
        for i, steps in enumerate(lengths):
            dots = sorted((r["settings"]["p_update"], r["test_error"]) for r in mine if r["steps"] == steps)
            colour = shade(METHOD[method], i, len(lengths))
            ax.plot(*zip(*dots, strict=True), "o-", linewidth=0.8, color=colour, label=f"{steps:,} steps")
        ax.legend(frameon=False, fontsize=9)
        ax.set_title(f"{LABELS[method]}, {title}", loc="left", fontsize=10, fontweight="bold")
    for ax in axes:
        ax.set_xlim(0, 1.03)
        ax.set_ylim(bottom=0)  # once both panels of a row are drawn
    for ax in axes[2:]:
        ax.set_xlabel("p_update: chance of each layer's update in a step")
    for ax in axes[::2]:
        ax.set_ylabel("test error, %")
    return drawn
