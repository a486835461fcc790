"""Who ticks, sends and is updated when: as a text, and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from synthgrad_lab.clocks.settings import LABELS, Settings
from synthgrad_lab.reporting.figures import sheet

Event = dict[str, Any]
"""``time`` (steps, from 1), ``network``, ``what``: tick, send RECEIVER, update."""
ROWS = ("A", "B")
COLOUR = {"tick": "#0072B2", "send": "#8a8a8a", "update": "#D55E00"}


def schedule(s: Settings, rounds: int = 2) -> list[Event]:
    """What happens in the first rounds, found by running them, on noise."""
    from synthgrad_lab.clocks.training import on_noise

    events: list[Event] = []
    one_round = on_noise(s, lambda *told: events.append(event(*told)))
    for _ in range(rounds):
        one_round()
    return events


def event(time: int, network: str, what: str) -> Event:
    """As a record has it."""
    return {"time": time, "network": network, "what": what}


def as_text(events: Sequence[Event]) -> str:
    """A row per network, a column per step: t ticks, s sends, u is updated."""
    last = max(e["time"] for e in events)
    done: dict[tuple[str, int], str] = {}
    for e in events:
        at = e["network"], e["time"]
        done[at] = done.get(at, "") + e["what"][0]
    rows = ["step " + "".join(f"{time:5d}" for time in range(1, last + 1))]
    rows += [f"{name:5}" + "".join(f"{done.get((name, t), '.'):>5}" for t in range(1, last + 1)) for name in ROWS]
    return "\n".join([*rows, "t: ticks   s: sends to the other   u: is updated"])


def drawn(events: Mapping[str, Sequence[Event]]) -> Figure:
    """The schedules of several methods below each other.

    Args:
        events: by method.
    """
    figure, axes = sheet(8.6, 0.8 + 1.25 * len(events), len(events), 1, sharex=True)
    for ax, (method, found) in zip(axes, events.items(), strict=True):
        _rows(ax, found)
        ax.set_title(LABELS.get(method, method), loc="left", fontsize=10, fontweight="bold")
    axes[-1].set_xlabel("steps: a digit each")
    handles = [
        Line2D([], [], color=COLOUR["tick"], marker="o", linestyle="", label="ticks"),
        Line2D([], [], color=COLOUR["send"], marker=r"$\downarrow$", linestyle="", label="sends"),
        Line2D([], [], color=COLOUR["update"], marker="s", linestyle="", label="is updated"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def _rows(ax: Axes, events: Sequence[Event]) -> None:
    row = {name: len(ROWS) - k for k, name in enumerate(ROWS)}
    for e in events:
        x, y, (what, *to) = e["time"], row[e["network"]], e["what"].split()
        if what == "send":
            style = {"arrowstyle": "->", "color": COLOUR["send"]}
            ax.annotate("", (x, row[to[0]] + 0.12), (x, y - 0.12), arrowprops=style)
        else:
            ax.plot(x + (0.3 if what == "update" else 0), y, "s" if what == "update" else "o", color=COLOUR[what])
    ax.set(yticks=list(row.values()), yticklabels=list(row), ylim=(0.5, len(ROWS) + 0.5))
    ax.tick_params("y", length=0)
