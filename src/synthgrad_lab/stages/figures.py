"""A figure of timelines: which stage works when."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
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
    times = [ends for stages in panels.values() for ends in _updates(stages) if len(ends) > 1]
    step = max([0.001, *(statistics.median(b - a for a, b in pairwise(ends)) for ends in times)])
    seconds = steps * step
    figure, axes = sheet(8.6, 1.0 + 1.7 * len(panels), len(panels), 1, sharex=True)
    for ax, (name, stages) in zip(axes, panels.items(), strict=True):
        end = min((max(ends, default=0.0) for ends in _updates(stages)), default=0.0)  # later, some stages rest
        start, worked = end - seconds, 0.0
        for k, stage in enumerate(stages):
            for e in stage:
                if e.kind in COLOURS and start <= e.end and e.start <= end:
                    left, right = max(e.start, start), min(e.end, end)
                    worked += right - left
                    width, place = 1000 * (right - left), 1000 * (left - start)
                    ax.barh(k, width, 0.7, place, color=COLOURS[e.kind], linewidth=0)
        ax.set(yticks=range(len(stages)), ylabel="stage", xlim=(0, 1000 * seconds))
        ax.invert_yaxis()
        share = worked / (seconds * max(len(stages), 1))
        ax.set_title(f"{name}: at work {share:.0%} of the time", fontsize=10, loc="left")
    axes[-1].set_xlabel("ms")
    handles = [Patch(color=colour, label=kind) for kind, colour in COLOURS.items()]
    handles.append(Patch(facecolor="white", edgecolor="#cccccc", label="wait"))
    figure.legend(handles=handles, loc="outside right upper", frameon=False)  # pyright: ignore
    return figure


def _updates(stages: Timeline) -> list[list[float]]:
    """When the updates of each stage end."""
    return [[e.end for e in stage if e.kind == "update"] for stage in stages]
