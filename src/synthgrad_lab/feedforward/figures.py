"""Figures of runs: error curves, the quality of synthetic gradients, sparse updates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from synthgrad_lab.feedforward.settings import LABELS, METHODS, Method
from synthgrad_lab.feedforward.summary import Key, groups
from synthgrad_lab.reporting import palette
from synthgrad_lab.reporting.axes import logarithmic
from synthgrad_lab.reporting.figures import shade, sheet
from synthgrad_lab.reporting.runs import Run
from synthgrad_lab.running.jsonl import Row

MARKER: dict[str, str] = dict(zip(METHODS, "sovPX^D*", strict=True))
MEASURES = {
    "cosine": ("cosine (direction)", {1.0: "right", 0.0: "M = 0"}),
    "norm_ratio": ("norm ratio (size)", {1.0: "right", 0.0: "M = 0"}),
    "relative_error": ("relative error", {0.0: "right", 1.0: "M = 0"}),
}
"""Each measure's title, and the values of a perfect M and of one that is always zero."""


def curves(runs: Iterable[Run]) -> Figure:
    """Validation error over steps: a line per method (mean over seeds, band from best to worst).

    Args:
        runs: of one network; those that have not finished are drawn one by one, dotted.
    """
    runs = [run for run in runs if run.points]
    finished = groups(run for run in runs if run.result)
    lengths = sorted({run.settings["steps"] for run in runs}, reverse=True)
    figure, (ax,) = sheet(8.6, 4.2, 1, 1)
    for key, members in finished.items():
        x, seeds = _aligned(members, _error)
        if not x:
            continue
        mean = _means(seeds)
        text = f"{_narrow(key)}: {mean[-1]:.2f} %" + (f" ({key.steps} steps)" if len(lengths) > 1 else "")
        dash = ("-", "--", "-.")[min(lengths.index(key.steps), 2)]
        alike = [other for other in finished if other[3:5] == key[3:5]]
        colour = _colour(key.method, alike.index(key), len(alike))
        ax.plot(x, mean, dash, color=colour, marker=MARKER.get(key.method, "v"), markersize=4, label=text)
        if len(members) > 1:
            low, high = zip(*((min(v), max(v)) for v in zip(*seeds, strict=True)), strict=True)
            ax.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    for key, members in groups(run for run in runs if not run.result).items():
        for run in members:
            x, y = _aligned([run], _error)
            text = f"{_narrow(key)}, seed {run.settings['seed']}:\n{run.state}"
            ax.plot(x, y[0], ":", color=_colour(key.method), marker="x", markersize=4, label=text)
    ax.set(xlabel="training steps", ylabel="validation error, % (log scale)")
    ax.set_xlim(left=0)
    ax.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 2.5, 5, 10], integer=True))
    logarithmic(ax)
    figure.legend(loc="outside right upper", frameon=False, title="last validation error", alignment="left")
    return figure


def _error(point: dict[str, Any]) -> float:
    return max(point["validation_error"], 0.01)  # a logarithmic axis has no zero


def quality(runs: Iterable[Run]) -> Figure | None:
    """Synthetic gradients compared with backpropagation's, over training; None if no run has an interface.

    A row per method, a panel per measure, a line per interface (mean over seeds).

    Args:
        runs: of one network; groups without a finished run are left out.
    """
    chosen = groups(run for run in runs if run.result and any(point["quality"] for point in run.points))
    if not chosen:
        return None
    several_lengths = len({key.steps for key in chosen}) > 1
    figure, axes = sheet(8.6, 2.75 * len(chosen), len(chosen), 3, sharex="row", sharey="col")
    for i, (key, members) in enumerate(chosen.items()):
        names = list(members[0].points[-1]["quality"])
        row = axes[3 * i : 3 * i + 3]
        for ax, (measure, (title, references)) in zip(row, MEASURES.items(), strict=True):
            for value, meaning in references.items():
                ax.axhline(value, color="#666666", linewidth=0.9, linestyle="-" if meaning == "right" else "--")
                ax.annotate(
                    meaning, (1, value), (2, 0), xycoords=ax.get_yaxis_transform(), textcoords="offset points",
                    fontsize=9, color="#444444", va="center", annotation_clip=False,
                )  # fmt: skip
            for k, name in enumerate(names):
                x, seeds = _aligned(members, lambda p, m=measure, n=name: p["quality"].get(n, {}).get(m, math.nan))
                marker = "osD^vP*X<>"[k % 10]
                colour = shade(_colour(key.method), k, len(names))
                ax.plot(x, _means(seeds), color=colour, marker=marker, markersize=4, label=name)
            ax.set_title(title if i == 0 else "", fontsize=10)
            ax.set_xlim(left=0)
            ax.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10], integer=True))
        text = _narrow(key) + (f", {key.steps} steps" if several_lengths else "")
        row[0].set_ylabel(text, fontweight="bold")
        row[2].legend(frameon=False, reverse=True, loc="center left", bbox_to_anchor=(1, 0.5), handlelength=1.4)
    for ax in axes[-3:]:
        ax.set_xlabel("training steps")
    return figure


def sparse(rows: Sequence[Row], panels: Mapping[tuple[Method, str], str]) -> Figure:
    """Test error over p_update: a panel per method and way of unlocking, a dot per run, a shade per length.

    Args:
        rows: gathered records.
        panels: titles by method and way of unlocking.
    """
    drawn, axes = sheet(8.6, 6.2, 2, 2, sharex=True, sharey="row")
    for ax, ((method, unlock), title) in zip(axes, panels.items(), strict=True):
        mine = [r for r in rows if r["method"] == method and r["settings"]["unlock"] == unlock]
        lengths = sorted({r["steps"] for r in mine})
        for i, steps in enumerate(lengths):
            dots = sorted((r["settings"]["p_update"], r["test_error"]) for r in mine if r["steps"] == steps)
            colour = shade(palette.METHOD[method], i, len(lengths))
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


def _aligned(runs: Sequence[Run], value: Any) -> tuple[list[int], list[list[float]]]:
    """The steps at which all runs have a point, and each run's values there."""
    found = [{point["step"]: value(point) for point in run.points} for run in runs]
    steps = sorted(set.intersection(*(set(points) for points in found)))
    return steps, [[points[step] for step in steps] for points in found]


def _means(seeds: list[list[float]]) -> list[float]:
    return [math.fsum(values) / len(values) for values in zip(*seeds, strict=True)]


def _narrow(key: Key) -> str:
    """A group's name, a line for each setting."""
    return key.name.replace(", ", ",\n")


def _colour(method: str, k: int = 0, count: int = 1) -> Any:
    """A method's colour, or the k-th of several shades of it."""
    colour = palette.METHOD.get(method, palette.OTHER)
    return shade(colour, k, count) if count > 1 else colour
