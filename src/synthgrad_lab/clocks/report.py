"""The part of a report that is about two clocks: a table, curves over samples, the schedules."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from synthgrad_lab.clocks.schedule import drawn
from synthgrad_lab.clocks.settings import LABELS, METHODS
from synthgrad_lab.reporting.figures import shade, sheet
from synthgrad_lab.reporting.runs import Run, set_apart

COLOURS = {"bprop": "#000000", "cut": "#8a8a8a", "dni": "#0072B2", "cdni": "#E69F00"}
CURVES = """Wrong answers on validation digits, over the digits that a run has seen: a line per run, a colour per
method, lighter for a smaller T. A is asked how many of its T digits were odd, B how many of all T² were 3s."""
SCHEDULE = """Who ticks, sends and is updated when, as recorded in the first two rounds of a run of each method.
A message leaves for B in the step in which A has seen its T digits; with backprop both wait T² steps for an
update."""


def lines(runs: Sequence[Run]) -> list[dict[str, str]]:
    """A row per run, with the settings in which it differs from others that the row does not tell from it."""
    found, apart = [], set_apart(runs, _shown)
    for run, settings in apart:
        s, result = run.settings, run.result
        row = {"method": LABELS.get(s["method"], s["method"]), "T": str(s["T"]), "seed": str(s["seed"])}
        if any(more for _, more in apart):
            row["settings"] = settings
        row["state"] = run.state
        for key in ("odd_error", "threes_error"):
            row[f"{key.replace('_', ' ')} %"] = f"{result[key]:.2f}" if result else ""
        for key in ("updates_a", "updates_b", "samples"):
            row[key.replace("_", " ")] = f"{result[key]:,}" if result else ""
        found.append(row | {"folder": str(run.folder)})
    return found


def _shown(run: Run) -> tuple[str, int]:
    return run.settings["method"], run.settings["T"]


def curves(runs: Sequence[Run]) -> Figure:
    """Both errors over the samples seen."""
    figure, axes = sheet(8.6, 4.2, 1, 2)
    lengths = sorted({run.settings["T"] for run in runs})
    told: set[str] = set()
    ordered = sorted(runs, key=lambda run: METHODS.index(run.settings["method"]))
    for run, settings in set_apart(ordered, _shown):
        method, T = run.settings["method"], run.settings["T"]
        name = f"{LABELS[method]}, T = {T}" + (f", {settings}" if settings else "")
        label = None if name in told else name
        told.add(name)
        colour = shade(COLOURS[method], lengths.index(T), len(lengths))
        for ax, key in zip(axes, ("odd_error", "threes_error"), strict=True):
            ax.plot([p["samples"] for p in run.points], [p[key] for p in run.points], color=colour, label=label)
    for ax, asked in zip(axes, ("A: odd digits", "B: 3s"), strict=True):
        ax.set(xlabel="digits seen", ylabel=f"{asked} miscounted, %", ylim=(0, None))
        ax.grid(axis="y", color="#e5e5e5", linewidth=0.8)
    axes[0].legend(frameon=False)
    return figure


def schedules(runs: Sequence[Run]) -> Figure | None:
    """Those of the smallest T, a panel per method."""
    ended = [run for run in runs if run.events]
    if not ended:
        return None
    least = min(run.settings["T"] for run in ended)
    first = {run.settings["method"]: run.events for run in reversed(ended) if run.settings["T"] == least}
    return drawn({method: first[method] for method in METHODS if method in first})
