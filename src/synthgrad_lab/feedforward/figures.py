"""Figures of runs: error curves, the quality of synthetic gradients, one step, sparse updates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from synthgrad_lab.feedforward.profiling import StepEvent, first_update, length, locks
from synthgrad_lab.feedforward.settings import LABELS, METHODS, Method
from synthgrad_lab.feedforward.summary import Key, groups
from synthgrad_lab.reporting import palette
from synthgrad_lab.reporting.axes import logarithmic
from synthgrad_lab.reporting.figures import mixed, shade, sheet
from synthgrad_lab.reporting.runs import Run
from synthgrad_lab.running.jsonl import Row

MARKER: dict[str, str] = dict(zip(METHODS, "sovPX^D*", strict=True))
MEASURES = {
    "cosine": ("cosine (direction)", {1.0: "right", 0.0: "M = 0"}),
    "norm_ratio": ("norm ratio (size)", {1.0: "right", 0.0: "M = 0"}),
    "relative_error": ("relative error", {0.0: "right", 1.0: "M = 0"}),
}
"""Each measure's title, and the values of a perfect M and of one that is always zero."""
EVENT_LABELS = {
    "forward": "forward",
    "loss": "loss, or synthetic gradient",
    "backward": "backward",
    "fit": "M below is fitted",
    "update": "update",
}
LOCK = {
    "forward lock": (palette.EVENT["forward"], "///"),
    "update lock": (palette.EVENT["update"], "\\\\\\"),
    "backward lock": (palette.EVENT["backward"], "xxx"),
}
"""Colour and hatching of a layer's waiting."""
BPROP, NO_BPROP = LABELS["bprop"], LABELS["no-bprop"]


def curves(runs: Iterable[Run]) -> Figure:
    """Validation error of a network's runs over steps: a line per method (mean over seeds, band from best to worst).

    Runs that have not finished are drawn one by one, dotted.
    """
    runs = [run for run in runs if run.points]
    finished = groups(run for run in runs if run.result)
    lengths = sorted({run.settings["steps"] for run in runs}, reverse=True)
    figure, (ax,) = sheet(8.6, 4.2, 1, 1)
    for key, members in finished.items():
        x, values = _aligned(members, _error)
        if not x:
            continue
        mean = list(map(fmean, values))
        text = f"{_narrow(key)}: {mean[-1]:.2f} %" + (f" ({key.steps} steps)" if len(lengths) > 1 else "")
        dash = ("-", "--", "-.")[min(lengths.index(key.steps), 2)]
        alike = [other for other in finished if other[3:5] == key[3:5]]
        colour = _colour(key.method, alike.index(key), len(alike))
        ax.plot(x, mean, dash, color=colour, marker=MARKER.get(key.method, "v"), markersize=4, label=text)
        if len(members) > 1:
            ax.fill_between(x, list(map(min, values)), list(map(max, values)), color=colour, alpha=0.2, linewidth=0)
    for key, members in groups(run for run in runs if not run.result).items():
        for run in members:
            x, values = _aligned([run], _error)
            text = f"{_narrow(key)}, seed {run.settings['seed']}:\n{run.state}"
            ax.plot(x, values, ":", color=_colour(key.method), marker="x", markersize=4, label=text)
    ax.set(xlabel="training steps", ylabel="validation error, % (log scale)", xlim=(0, None))
    ax.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 2.5, 5, 10], integer=True))
    logarithmic(ax)
    figure.legend(loc="outside right upper", frameon=False, title="last validation error", alignment="left")
    return figure


def _error(point: dict[str, Any]) -> float:
    return max(point["validation_error"], 0.01)  # a logarithmic axis has no zero


def quality(runs: Iterable[Run]) -> Figure | None:
    """Synthetic gradients of a network's finished runs compared with backpropagation's, over training.

    A row per method, a panel per measure, a line per interface (mean over seeds); None if no run has an interface.
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
                x, values = _aligned(members, lambda p, m=measure, n=name: p["quality"].get(n, {}).get(m, math.nan))
                marker = "osD^vP*X<>"[k % 10]
                colour = shade(_colour(key.method), k, len(names))
                ax.plot(x, list(map(fmean, values)), color=colour, marker=marker, markersize=4, label=name)
            ax.set_title(title if i == 0 else "", fontsize=10)
            ax.set_xlim(left=0)
            ax.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10], integer=True))
        text = _narrow(key) + (f", {key.steps} steps" if several_lengths else "")
        row[0].set_ylabel(text, fontweight="bold")
        row[2].legend(frameon=False, reverse=True, loc="center left", bbox_to_anchor=(1, 0.5), handlelength=1.4)
    for ax in axes[-3:]:
        ax.set_xlabel("training steps")
    return figure


def timeline(runs: Iterable[Run]) -> Figure | None:
    """One step of each method on a network, on one time axis, a row per layer: its work, and its waiting for locks.

    For each method the run with the step of median length is drawn. No Bprop is left out, because it has nothing to
    wait for, unless it is the only method.
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
        rows = {f"layer {k}": k for k in range(1, layers + 1)}
        ax.set(yticks=list(rows.values()), yticklabels=list(rows), ylim=(0.45, layers + 0.55))
        ax.tick_params("y", length=0)
    dotted = "; dotted: Bprop's step ends" if bprop and len(median) > 1 else ""
    axes[-1].set_xlabel(f"milliseconds since the step began{dotted}")
    handles = [Patch(color=colour, label=EVENT_LABELS[kind]) for kind, colour in palette.EVENT.items()]
    handles += [Patch(**_hatched(name), label=f"waits: {name}") for name in LOCK]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


def sparse(rows: Sequence[Row], panels: Mapping[tuple[Method, str], str]) -> Figure:
    """Test error over p_update: a panel per method and way of unlocking, a dot per record, a shade per length."""
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
        ax.set(xlim=(0, 1.03), ylim=(0, None))  # once both panels of a row are drawn
    for ax in axes[2:]:
        ax.set_xlabel("p_update: chance of each layer's update in a step")
    for ax in axes[::2]:
        ax.set_ylabel("test error, %")
    return drawn


def _aligned(runs: Sequence[Run], value: Any) -> tuple[list[int], list[list[float]]]:
    """The steps at which all runs have a point, and the runs' values at each."""
    found = [{point["step"]: value(point) for point in run.points} for run in runs]
    steps = sorted(set.intersection(*map(set, found)))
    return steps, [[points[step] for points in found] for step in steps]


def _narrow(key: Key) -> str:
    """A group's name, a line for each setting."""
    return key.name.replace(", ", ",\n")


def _colour(method: str, k: int = 0, count: int = 1) -> Any:
    """A method's colour, or the k-th of several shades of it."""
    colour = palette.METHOD.get(method, palette.OTHER)
    return shade(colour, k, count) if count > 1 else colour


def _step(ax: Axes, events: Sequence[StepEvent], limit: float) -> None:
    """Draw one step on an axis that ends at ``limit``."""
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.2}
    for layer, lock, start, end in locks(events):
        ax.barh(layer, end - start, 0.66, start, **_hatched(lock))
        if end - start > 0.0096 * len(lock) * limit:  # there is room for its name
            ax.text((start + end) / 2, layer, lock, ha="center", va="center", fontsize=9, bbox=box)
    for e in events:
        ax.barh(e["layer"], e["end"] - e["start"], 0.66, e["start"], color=palette.EVENT[e["kind"]], linewidth=0)
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
