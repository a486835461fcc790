"""The part of a report about two clocks: a table, curves over digits, the schedules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from synthgrad_lab.clocks.schedule import TickEvent
from synthgrad_lab.clocks.settings import LABELS, METHODS
from synthgrad_lab.reporting.figures import shade, sheet
from synthgrad_lab.reporting.html_report import Lines, Section, picture
from synthgrad_lab.reporting.palette import EVENT, GRID, METHOD
from synthgrad_lab.reporting.runs import Run, set_apart

CURVES = """Wrong answers on validation digits, over the digits that a run has seen: a line per run, a colour per
method, lighter for a smaller T. A answers how many of its T digits were odd, B how many of all T² were 3s."""
SCHEDULE = """Ticks, messages and updates by step, as recorded in the first two rounds of a run of each method.
A message leaves for B in the step in which A has seen its T digits; with backprop both wait T² steps for an
update."""
TICK, SEND, UPDATE = EVENT["forward"], "grey", EVENT["update"]


def section(runs: Sequence[Run], **options: Any) -> Section | None:
    """The family's part of a report."""
    if not runs:
        return None
    figure = curves([run for run in runs if run.points])
    blocks = [picture("Errors", figure, CURVES, "Both errors over digits; the table has the ends")]
    if figure := schedules(runs):
        alt = "A ticks at every step, B at every T-th; with Bprop both are updated every T² steps, else A every T"
        blocks.append(picture("Schedules", figure, SCHEDULE, alt))
    return Section("Two networks, two clocks", lines(runs), blocks)


def lines(runs: Sequence[Run]) -> Lines:
    """A row per run, with the settings that set it apart from runs that look the same otherwise."""
    found, apart = [], set_apart(runs, lambda run: (run.settings["method"], run.settings["T"]))
    for run, settings in apart:
        s, result = run.settings, run.result
        row = {"method": LABELS[s["method"]], "T": str(s["T"]), "seed": str(s["seed"])}
        if any(more for _, more in apart):
            row["settings"] = settings
        row["state"] = run.state
        for key in ("odd_error", "threes_error"):
            row[f"{key.replace('_', ' ')} %"] = f"{result[key]:.2f}" if result else ""
        for key in ("updates_a", "updates_b", "samples"):
            row[key.replace("_", " ")] = f"{result[key]:,}" if result else ""
        found.append(row | {"folder": str(run.folder)})
    return found


def curves(runs: Sequence[Run]) -> Figure:
    """Both errors over the digits seen."""
    figure, axes = sheet(8.6, 4.2, 1, 2)
    lengths = sorted({run.settings["T"] for run in runs})
    named: dict[str, Line2D] = {}
    ordered = sorted(runs, key=lambda run: METHODS.index(run.settings["method"]))
    for run, settings in set_apart(ordered, lambda run: (run.settings["method"], run.settings["T"])):
        method, T = run.settings["method"], run.settings["T"]
        colour = shade(METHOD[method], lengths.index(T), len(lengths))
        for ax, key in zip(axes, ("odd_error", "threes_error"), strict=True):
            (line,) = ax.plot([p["samples"] for p in run.points], [p[key] for p in run.points], color=colour)
            named.setdefault(f"{LABELS[method]}, T = {T}" + (f", {settings}" if settings else ""), line)
    for ax, counted in zip(axes, ("A: odd digits", "B: 3s"), strict=True):
        ax.set(xlabel="digits seen", ylabel=f"{counted} miscounted, %", ylim=(0, None))
        ax.grid(axis="y", color=GRID, linewidth=0.8)
    if runs:
        axes[0].legend(named.values(), named, frameon=False)
    return figure


def schedules(runs: Sequence[Run]) -> Figure | None:
    """The schedules of the runs with the smallest T, a panel per method; None without a finished run."""
    ended = [run for run in runs if run.events]
    least = min((run.settings["T"] for run in ended), default=0)
    first: Any = {run.settings["method"]: run.events for run in reversed(ended) if run.settings["T"] == least}
    return drawn({method: first[method] for method in METHODS if method in first}) if first else None


def drawn(events: Mapping[str, Sequence[TickEvent]]) -> Figure:
    """The schedules of several methods below each other."""
    row = {"A": 2, "B": 1}
    figure, axes = sheet(8.6, 0.8 + 1.25 * len(events), len(events), 1, sharex=True)
    for ax, (method, found) in zip(axes, events.items(), strict=True):
        for event in found:
            x, y, (what, *to) = event["time"], row[event["network"]], event["what"].split()
            if what == "send":
                arrow = {"arrowstyle": "->", "color": SEND}
                ax.annotate("", (x, row[to[0]] + 0.12), (x, y - 0.12), arrowprops=arrow)
            elif what == "update":
                ax.plot(x + 0.3, y, "s", color=UPDATE)
            else:
                ax.plot(x, y, "o", color=TICK)
        ax.set(yticks=list(row.values()), yticklabels=list(row), ylim=(0.5, 2.5))
        ax.tick_params("y", length=0)
        ax.set_title(LABELS[method], loc="left", fontsize=10, fontweight="bold")
    axes[-1].set_xlabel("steps: a digit each")
    signs = {"ticks": (TICK, "o"), "sends": (SEND, r"$\downarrow$"), "is updated": (UPDATE, "s")}
    handles = [Line2D([], [], color=c, marker=m, linestyle="", label=name) for name, (c, m) in signs.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure
