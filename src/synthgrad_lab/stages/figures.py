"""A figure of timelines: which stage works when."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from itertools import pairwise

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from synthgrad_lab.reporting.figures import sheet
from synthgrad_lab.reporting.palette import EVENT
from synthgrad_lab.stages.trace import Timeline

COLOURS = {**{kind: EVENT[kind] for kind in ("forward", "backward", "update", "fit")}, "send": EVENT["loss"]}
"""Colours of events; waiting is left white."""


def timelines(panels: Mapping[str, Timeline], steps: float) -> Figure:
    """Draw a panel per timeline, a row per stage: the last steps during which all stages were at work.

    Args:
        panels: timelines by title.
        steps: how much of them is shown, in steps of the slowest.
    """
    seconds = steps * longest_step(panels.values())
    figure, axes = sheet(8.6, 1.0 + 1.7 * len(panels), len(panels), 1, sharex=True)
    for ax, (name, stages) in zip(axes, panels.items(), strict=True):
        start = window(stages, seconds)
        for k, stage in enumerate(stages):
            for e in stage:
                if e.kind in COLOURS and start <= e.end and e.start <= start + seconds:
                    left, right = max(e.start, start), min(e.end, start + seconds)
                    width, place = 1000 * (right - left), 1000 * (left - start)
                    ax.barh(k, width, 0.7, place, color=COLOURS[e.kind], linewidth=0)
        ax.set(yticks=range(len(stages)), ylabel="stage", xlim=(0, 1000 * seconds))
        ax.invert_yaxis()
        ax.set_title(f"{name}: at work {busy(stages, start, seconds):.0%} of the time", fontsize=10, loc="left")
    axes[-1].set_xlabel("ms")
    handles = [Patch(color=colour, label=kind) for kind, colour in COLOURS.items()]
    handles.append(Patch(facecolor="white", edgecolor="#cccccc", label="wait"))
    figure.legend(handles=handles, loc="outside right upper", frameon=False)  # pyright: ignore
    return figure


def longest_step(panels: Iterable[Timeline]) -> float:
    """Seconds of the longest step in any timeline: the median time between two updates of a stage."""
    found = [0.001]
    for stages in panels:
        ends = [[e.end for e in stage if e.kind == "update"] for stage in stages]
        found += [statistics.median(b - a for a, b in pairwise(times)) for times in ends if len(times) > 1]
    return max(found)


def window(stages: Timeline, seconds: float) -> float:
    """Start of the last stretch in which every stage makes steps; it ends when the first stage makes its last."""
    ends = [max((e.end for e in stage if e.kind == "update"), default=0.0) for stage in stages]
    return min(ends, default=0.0) - seconds


def busy(stages: Timeline, start: float, seconds: float) -> float:
    """Share of the time in which the stages are at work, the mean over all of them."""
    end = start + seconds
    worked = sum(
        max(min(e.end, end) - max(e.start, start), 0.0) for stage in stages for e in stage if e.kind in COLOURS
    )
    return worked / (seconds * max(len(stages), 1))
