"""The timeline of a real run: a Chrome trace that Perfetto opens, and a picture."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from synthgrad.stages.outcome import StageEvent
from synthgrad_lab.feedforward.figures import EVENT
from synthgrad_lab.reporting.figures import sheet

COLOURS = {**{kind: EVENT[kind] for kind in ("forward", "backward", "update", "fit")}, "send": "#F0E442"}
"""Waiting is what is left white."""


def chrome(events: Sequence[Sequence[StageEvent]], names: Sequence[str] = ()) -> dict[str, Any]:
    """The trace-event format: a process per stage, times in microseconds.

    Args:
        events: of every stage.
        names: of the stages.
    """
    first = min((e.start for stage in events for e in stage), default=0.0)
    found: list[dict[str, Any]] = []
    for k, stage in enumerate(events):
        name = names[k] if names else f"stage {k}"
        found.append({"ph": "M", "pid": k, "tid": 0, "name": "process_name", "args": {"name": name}})
        for e in stage:
            times = {"ts": 1e6 * (e.start - first), "dur": 1e6 * (e.end - e.start)}
            found.append({"ph": "X", "pid": k, "tid": 0, "name": e.kind, "args": {"step": e.step}, **times})
    return {"traceEvents": found, "displayTimeUnit": "ms"}


def drawn(panels: dict[str, Sequence[Sequence[StageEvent]]], seconds: float) -> Figure:
    """A row per stage, a panel per schedule: the last so many seconds during which all stages were at work.

    Args:
        panels: each stage's events, by the name of the schedule.
        seconds: how much of them.
    """
    figure, axes = sheet(8.6, 1.0 + 1.7 * len(panels), len(panels), 1, sharex=True)
    for ax, (name, stages) in zip(axes, panels.items(), strict=True):
        start = window(stages, seconds)
        for k, stage in enumerate(stages):
            for e in stage:
                if e.kind in COLOURS and start <= e.end and e.start <= start + seconds:
                    left, right = max(e.start, start), min(e.end, start + seconds)
                    ax.barh(
                        k, 1000 * (right - left), 0.7, 1000 * (left - start), color=COLOURS[e.kind], linewidth=0
                    )
        ax.set(yticks=range(len(stages)), ylabel="stage", xlim=(0, 1000 * seconds))
        ax.invert_yaxis()
        ax.set_title(f"{name}: at work {busy(stages, start, seconds):.0%} of the time", fontsize=10, loc="left")
    axes[-1].set_xlabel("ms")
    handles = [Patch(color=colour, label=kind) for kind, colour in COLOURS.items()]
    handles.append(Patch(facecolor="white", edgecolor="#cccccc", label="wait"))
    figure.legend(handles=handles, loc="outside right upper", frameon=False)  # pyright: ignore
    return figure


def longest_step(panels: dict[str, Sequence[Sequence[StageEvent]]]) -> float:
    """Seconds of the longest step of any schedule: from a stage's update to its next one, the median."""
    found = [0.001]
    for stages in panels.values():
        ends = [[e.end for e in stage if e.kind == "update"] for stage in stages]
        found += [statistics.median(b - a for a, b in pairwise(times)) for times in ends if len(times) > 1]
    return max(found)


def window(stages: Sequence[Sequence[StageEvent]], seconds: float) -> float:
    """Where the last stretch begins in which every stage makes steps; its end is the first stage's last step."""
    ends = [max((e.end for e in stage if e.kind == "update"), default=0.0) for stage in stages]
    return min(ends, default=0.0) - seconds


def busy(stages: Sequence[Sequence[StageEvent]], start: float, seconds: float) -> float:
    """The share of the time that the stages are at work, the mean of all."""
    worked = sum(
        max(min(e.end, start + seconds) - max(e.start, start), 0.0)
        for stage in stages
        for e in stage
        if e.kind in COLOURS
    )
    return worked / (seconds * max(len(stages), 1))
