"""The part of a report that is about recurrent runs: a table, and a curve per task."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.figure import Figure

from synthgrad_lab.recurrent.settings import LABELS
from synthgrad_lab.recurrent.tables import MEASURES
from synthgrad_lab.reporting.figures import shade, sheet
from synthgrad_lab.reporting.runs import Run, set_apart

COLOURS = {
    **{"frozen": "#8a8a8a", "bptt": "#000000", "local": "#CC79A7"},
    **{"dni": "#0072B2", "cdni": "#D55E00", "dni-aux": "#E69F00", "bp-lambda": "#117733"},
}
CAPTION = """On validation data, over updates: a line per run, a colour per method, lighter for shorter chunks."""


def lines(runs: Iterable[Run]) -> list[dict[str, str]]:
    """A row per run, with the settings in which it differs from others that the row does not tell from it."""
    runs = list(runs)
    settings = [text for _, text in set_apart(runs, _shown)]
    return [
        {
            "task": s["recipe"],
            "method": LABELS.get(s["method"], str(s["method"])),
            "T": str(s["T"]),
            "cell": f"{s['cell']}, {s['units']}",
            **({"settings": more} if any(settings) else {}),
            "seed": str(s["seed"]),
            "state": run.state,
            "reached": _reached(run),
            "true cosine": _cosine(run),
            "ms per update": f"{1000 * run.result['seconds_per_update']:.2f}" if run.result else "",
            "folder": str(run.folder),
        }
        for run, s, more in ((run, run.settings, more) for run, more in zip(runs, settings, strict=True))
    ]


def _shown(run: Run) -> tuple[Any, ...]:
    return tuple(run.settings[name] for name in ("recipe", "method", "T", "cell", "units"))


def _reached(run: Run) -> str:
    key, shown, _ = MEASURES[run.settings["recipe"]]
    return f"{shown}: {run.result[key]:.4g}" if run.result else ""


def _cosine(run: Run) -> str:
    """Of the synthetic gradients with those of full backpropagation, mean over a probe's boundaries."""
    quality = run.result["quality"] if run.result else {}
    cosines = [measures["cosine"] for name, measures in quality.items() if name != "state"]
    return f"{math.fsum(cosines) / len(cosines):.2f}" if cosines else ""


def by_task(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Runs with a curve, by recipe."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        if run.points:
            found.setdefault(run.settings["recipe"], []).append(run)
    return found


def curves(recipe: str, runs: Sequence[Run]) -> Figure:
    """The task's measure over updates."""
    figure, (ax,) = sheet(8.6, 4.2, 1, 1)
    chunks = sorted({run.settings["T"] for run in runs})
    told: set[str] = set()
    for run, settings in set_apart(runs, lambda run: (run.settings["method"], run.settings["T"])):
        method, T = run.settings["method"], run.settings["T"]
        key = next(name for name in run.points[0] if name not in ("kind", "step", "train_loss"))
        name = f"{LABELS.get(method, method)}, T = {T}" + (f", {settings}" if settings else "")
        label = None if name in told else name
        told.add(name)
        colour: Any = shade(COLOURS[method], chunks.index(T), len(chunks))
        ax.plot([p["step"] for p in run.points], [p[key] for p in run.points], color=colour, label=label)
    ax.set_xlabel("updates")
    ax.set_ylabel(MEASURES[recipe][1])
    ax.grid(axis="y", color="#e5e5e5", linewidth=0.8)
    ax.legend(frameon=False)
    return figure
