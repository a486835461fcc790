"""The part of a report about recurrent runs: a table, and curves for each task."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from synthgrad_lab.recurrent.measures import MEASURES
from synthgrad_lab.recurrent.settings import LABELS
from synthgrad_lab.reporting.figures import shade, sheet
from synthgrad_lab.reporting.html_report import Lines, Section, picture
from synthgrad_lab.reporting.palette import GRID, METHOD
from synthgrad_lab.reporting.runs import Run, set_apart
from synthgrad_lab.reporting.statistics import grouped

CAPTION = """On validation data, over updates: a line per run, a colour per method, lighter for shorter chunks."""


def section(runs: Sequence[Run], **options: Any) -> Section | None:
    """The family's part of a report."""
    if not runs:
        return None
    with_curve = [run for run in runs if run.points]
    blocks = [
        picture(recipe, curves(recipe, members), CAPTION, f"{recipe}: the measure of each run over updates")
        for recipe, members in grouped(with_curve, lambda run: run.settings["recipe"]).items()
    ]
    return Section("Recurrent runs", lines(runs), blocks)


def lines(runs: Sequence[Run]) -> Lines:
    """A row per run, with the settings that set it apart from runs that look the same otherwise."""
    shown = itemgetter("recipe", "method", "T", "cell", "width")
    found, apart = [], set_apart(runs, lambda run: shown(run.settings))
    for run, settings in apart:
        s, result = run.settings, run.result
        measure, quality = MEASURES[s["recipe"]], result["quality"] if result else {}
        cosines = [measures["cosine"] for name, measures in quality.items() if name != "state"]  # of a probe
        found.append(
            {
                "task": s["recipe"],
                "method": LABELS[s["method"]],
                "T": str(s["T"]),
                "cell": f"{s['cell']}, {s['width']}",
                **({"settings": settings} if any(text for _, text in apart) else {}),
                "seed": str(s["seed"]),
                "state": run.state,
                "reached": f"{measure.label}: {result[measure.result]:.4g}" if result else "",
                "true cosine": f"{statistics.fmean(cosines):.2f}" if cosines else "",
                "ms per update": f"{1000 * result['seconds_per_step']:.2f}" if result else "",
                "folder": str(run.folder),
            }
        )
    return found


def curves(recipe: str, runs: Sequence[Run]) -> Figure:
    """The task's measure over updates."""
    figure, (ax,) = sheet(8.6, 4.2, 1, 1)
    chunks = sorted({run.settings["T"] for run in runs})
    named: dict[str, Line2D] = {}
    for run, settings in set_apart(runs, lambda run: (run.settings["method"], run.settings["T"])):
        method, T = run.settings["method"], run.settings["T"]
        colour: Any = shade(METHOD[method], chunks.index(T), len(chunks))
        values = [point[MEASURES[recipe].point] for point in run.points]
        (line,) = ax.plot([point["step"] for point in run.points], values, color=colour)
        named.setdefault(f"{LABELS[method]}, T = {T}" + (f", {settings}" if settings else ""), line)
    ax.set(xlabel="updates", ylabel=MEASURES[recipe].label)
    ax.grid(axis="y", color=GRID, linewidth=0.8)
    ax.legend(named.values(), named, frameon=False)
    return figure
