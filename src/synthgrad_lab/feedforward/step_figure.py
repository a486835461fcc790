"""A figure of one step of each method: when each layer works, and when it waits for others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from synthgrad_lab.feedforward.locks import first_update, length, locks
from synthgrad_lab.feedforward.profiling import StepEvent
from synthgrad_lab.feedforward.settings import LABELS
from synthgrad_lab.feedforward.summary import groups
from synthgrad_lab.reporting.figures import mixed, sheet
from synthgrad_lab.reporting.palette import EVENT
from synthgrad_lab.reporting.runs import Run

EVENT_LABELS = {
    "forward": "forward",
    "loss": "loss, or synthetic gradient",
    "backward": "backward",
    "fit": "M below is fitted",
    "update": "update",
}
LOCK = {
    "forward lock": (EVENT["forward"], "///"),
    "update lock": (EVENT["update"], "\\\\\\"),
    "backward lock": (EVENT["backward"], "xxx"),
}
"""Colour and hatching of a layer's waiting."""
BPROP, NO_BPROP = LABELS["bprop"], LABELS["no-bprop"]


def timeline(runs: Iterable[Run]) -> Figure | None:
    """One step of each method on one time axis, a row per layer: its work, and the locks that it waits for.

    Args:
        runs: of one network; for each method the run with the step of median length is drawn. No Bprop is left out,
            because it has nothing to wait for, unless it is the only method.
    """
    steps: dict[str, list[Sequence[StepEvent]]] = {}
    for key, members in groups(run for run in runs if run.events).items():
        steps.setdefault(key.name, []).extend(run.events for run in members)  # pyright: ignore[reportArgumentType]
    if not steps:
        return None
    if len(steps) > 1:
        steps.pop(NO_BPROP, None)
    median = {name: sorted(found, key=length)[(len(found) - 1) // 2] for name, found in steps.items()}
    layers = max(e["layer"] for events in median.values() for e in events)
    bprop, longest = length(median.get(BPROP, [])), max(map(length, median.values()))
    panels = list(median.items())
    if enlarged := 0 < bprop < 0.6 * longest:
        panels.insert(0, (BPROP, median[BPROP]))
    figure, axes = sheet(8.6, 0.9 + (0.75 + 0.42 * layers) * len(panels), len(panels), 1)
    # The note stands to the right of layer 1's last box: leave it 30 % of the width.
    noted = [note[0] for events in median.values() if (note := first_update(events))]
    limit = max([1.02 * longest, *(end / 0.7 for end in noted)])
    for i, (ax, (name, events)) in enumerate(zip(axes, panels, strict=True)):
        alone = enlarged and i == 0
        _step(ax, events, bprop / 0.7 if alone else limit)
        title = f"{name}: one step takes {length(events):.1f} ms"
        if alone:
            title += " (here enlarged; below, all on one time axis)"
        elif bprop and name != BPROP:
            title += f", {length(events) / bprop:.1f} times Bprop's"
            ax.axvline(bprop, color="black", linestyle=":", linewidth=1, zorder=0)
        ax.set_title(title, loc="left", fontsize=10, fontweight="bold")
        ax.set(yticks=range(1, layers + 1), ylim=(0.45, layers + 0.55))
        ax.set_yticklabels([f"layer {k}" for k in range(1, layers + 1)])
        ax.tick_params("y", length=0)
    dotted = "; dotted: Bprop's step ends" if bprop and len(median) > 1 else ""
    axes[-1].set_xlabel(f"milliseconds since the step began{dotted}")
    handles = [Patch(color=colour, label=EVENT_LABELS[kind]) for kind, colour in EVENT.items()]
    handles += [Patch(**_hatched(name), label=f"waits: {name}") for name in LOCK]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


def _step(ax: Axes, events: Sequence[StepEvent], limit: float) -> None:
    """Draw one step on an axis that ends at ``limit``."""
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.2}
    for layer, lock, start, end in locks(events):
        ax.barh(layer, end - start, 0.66, start, **_hatched(lock))
        if end - start > 0.0096 * len(lock) * limit:  # there is room for its name
            ax.text((start + end) / 2, layer, lock, ha="center", va="center", fontsize=9, bbox=box)
    for e in events:
        ax.barh(e["layer"], e["end"] - e["start"], 0.66, e["start"], color=EVENT[e["kind"]], linewidth=0)
    if note := first_update(events):
        end, early = note
        ax.annotate(
            f"layer 1 updated after {end:.1f} ms" + (",\nbefore layer 2 runs" if early else ""),
            (end, 1), (14, 0), textcoords="offset points", va="center", fontsize=9, bbox=box,
            arrowprops={"arrowstyle": "-|>", "color": "black", "shrinkA": 0, "shrinkB": 0},
        )  # fmt: skip
    ax.set_xlim(0, limit)


def _hatched(lock: str) -> dict[str, Any]:
    colour, hatch = LOCK[lock]
    return {"facecolor": mixed(colour, 0.85), "edgecolor": mixed(colour, 0.5), "hatch": hatch, "linewidth": 0}
