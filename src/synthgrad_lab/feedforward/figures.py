"""Figures of runs: error curves, how good the synthetic gradients are, and who waits for whom in one step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from synthgrad_lab.feedforward.locks import first_update, length, locks
from synthgrad_lab.feedforward.profiling import Event
from synthgrad_lab.feedforward.summary import groups, shown
from synthgrad_lab.reporting.axes import logarithmic
from synthgrad_lab.reporting.figures import mixed, shade, sheet
from synthgrad_lab.reporting.runs import Run, set_apart

# Okabe and Ito's colours, told apart with any kind of colour vision; methods and events share none of them.
METHOD = {
    "no-bprop": "#8a8a8a",
    "bprop": "#000000",
    "local-loss": "#882255",
    "stale": "#332288",
    "feedback-alignment": "#999933",
    "dni": "#0072B2",
    "cdni": "#E69F00",
    "critic": "#117733",
}
MARKER = dict(zip(METHOD, "sovPX^D*", strict=True))
EVENT = {"forward": "#56B4E9", "loss": "#F0E442", "backward": "#D55E00", "fit": "#CC79A7", "update": "#009E73"}
EVENT_MEANS = {
    "forward": "forward",
    "loss": "loss, or synthetic gradient",
    "backward": "backward",
    "fit": "M below is fitted",
    "update": "update",
}
LOCK = {
    "forward lock": ("#56B4E9", "///"),
    "update lock": ("#009E73", "\\\\\\"),
    "backward lock": ("#D55E00", "xxx"),
}

MEASURES = {
    "cosine": ("cosine (direction)", {1.0: "right", 0.0: "M = 0"}),
    "norm_ratio": ("norm ratio (size)", {1.0: "right", 0.0: "M = 0"}),
    "relative_error": ("relative error", {0.0: "right", 1.0: "M = 0"}),
}


def curves(runs: Iterable[Run]) -> Figure:
    """Validation error over steps: a line per method (mean over seeds, band from best to worst).

    Args:
        runs: of one network; those that have not finished are drawn singly, dotted.
    """
    runs = [run for run in runs if run.points]
    finished = groups(run for run in runs if run.result)
    lengths = sorted({run.settings["steps"] for run in runs}, reverse=True)
    figure, (ax,) = sheet(8.6, 4.2, 1, 1)
    for (*_, method, steps, settings), members in finished.items():
        x, seeds = _aligned(members, lambda point: point["validation_error"])
        if not x:
            continue
        seeds = [[max(value, 0.01) for value in seed] for seed in seeds]  # a logarithmic axis has no zero
        mean = [math.fsum(values) / len(values) for values in zip(*seeds, strict=True)]
        label = f"{shown(method, settings)}: {mean[-1]:.2f} %" + (f" ({steps} steps)" if len(lengths) > 1 else "")
        dash = ("-", "--", "-.")[min(lengths.index(steps), 2)]
        alike = [key[5] for key in finished if key[3:5] == (method, steps)]
        colour = _of(method, alike.index(settings), len(alike))
        ax.plot(x, mean, dash, color=colour, marker=MARKER.get(method, "v"), markersize=4, label=label)
        if len(members) > 1:
            low, high = zip(*((min(v), max(v)) for v in zip(*seeds, strict=True)), strict=True)
            ax.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    for run, settings in set_apart([run for run in runs if not run.result], lambda run: run.shown):
        x, y = _aligned([run], lambda point: max(point["validation_error"], 0.01))
        method = run.settings["method"]
        label = f"{shown(method, settings)}, seed {run.settings['seed']}:\n{run.state}"
        ax.plot(x, y[0], ":", color=_of(method), marker="x", markersize=4, label=label)
    ax.set(xlabel="training steps", ylabel="validation error, % (log scale)")
    ax.set_xlim(left=0)
    ax.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 2.5, 5, 10], integer=True))
    logarithmic(ax)
    figure.legend(loc="outside right upper", frameon=False, title="last validation error", alignment="left")
    return figure


def quality(runs: Iterable[Run]) -> Figure | None:
    """The synthetic gradients beside backprop's over training; None if no run has an interface.

    A row per method, a panel per measure, a line per interface (mean over seeds).

    Args:
        runs: of one network; groups without a finished run are left out.
    """
    chosen = groups(r for r in runs if r.result and any(point["quality"] for point in r.points))
    if not chosen:
        return None
    several_lengths = len({key[4] for key in chosen}) > 1
    figure, axes = sheet(8.6, 2.75 * len(chosen), len(chosen), 3, sharex="row", sharey="col")
    for i, ((*_, method, steps, settings), members) in enumerate(chosen.items()):
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
                x, seeds = _aligned(members, lambda p, m=measure, n=name: p["quality"].get(n, {}).get(m, math.nan))
                mean = [math.fsum(values) / len(values) for values in zip(*seeds, strict=True)]
                colour = shade(_of(method), k, len(names))
                ax.plot(x, mean, color=colour, marker="osD^vP*X<>"[k % 10], markersize=4, label=name)
            ax.set_title(title if i == 0 else "", fontsize=10)
            ax.set_xlim(left=0)
            ax.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10], integer=True))
        row[0].set_ylabel(
            shown(method, settings.replace(", ", ",\n")) + (f", {steps} steps" if several_lengths else ""),
            fontweight="bold",
        )
        row[2].legend(frameon=False, reverse=True, loc="center left", bbox_to_anchor=(1, 0.5), handlelength=1.4)
    for ax in axes[-3:]:
        ax.set_xlabel("training steps")
    return figure


def timeline(runs: Iterable[Run]) -> Figure | None:
    """One step of each method on one time axis, a row per layer: what runs when, and the locks it waits for.

    Args:
        runs: of one network; of each method the run with the step of median length is drawn. No Bprop, which
            has nothing to wait for, is left out, unless it is all there is.
    """
    steps: dict[str, list[list[Event]]] = {}
    for (*_, method, _, settings), members in groups(run for run in runs if run.events).items():
        steps.setdefault(shown(method, settings) if settings else method, []).extend(r.events for r in members)
    if not steps:
        return None
    if len(steps) > 1:
        steps.pop("no-bprop", None)
    median = {m: sorted(found, key=length)[(len(found) - 1) // 2] for m, found in steps.items()}
    layers = max(e["layer"] for events in median.values() for e in events)
    bprop, longest = length(median.get("bprop", [])), max(map(length, median.values()))
    panels = list(median.items())
    if enlarged := 0 < bprop < 0.6 * longest:
        panels.insert(0, panels[list(median).index("bprop")])
    figure, axes = sheet(8.6, 0.9 + (0.75 + 0.42 * layers) * len(panels), len(panels), 1)
    # The note stands to the right of layer 1's last box: leave it 30 % of the width.
    noted = [note[0] for events in median.values() if (note := first_update(events))]
    limit = max([1.02 * longest, *(end / 0.7 for end in noted)])
    for i, (ax, (method, events)) in enumerate(zip(axes, panels, strict=True)):
        alone = enlarged and i == 0
        _step(ax, events, bprop / 0.7 if alone else limit)
        title = f"{shown(method)}: one step takes {length(events):.1f} ms"
        if alone:
            title += " (here enlarged; below, all on one time axis)"
        elif bprop and method != "bprop":
            title += f", {length(events) / bprop:.1f} times Bprop's"
            ax.axvline(bprop, color="black", linestyle=":", linewidth=1, zorder=0)
        ax.set_title(title, loc="left", fontsize=10, fontweight="bold")
        ax.set(yticks=range(1, layers + 1), ylim=(0.45, layers + 0.55))
        ax.set_yticklabels([f"layer {k}" for k in range(1, layers + 1)])
        ax.tick_params("y", length=0)
    dotted = "; dotted: Bprop's step ends" if bprop and len(median) > 1 else ""
    axes[-1].set_xlabel(f"milliseconds since the step began{dotted}")
    handles = [Patch(color=colour, label=EVENT_MEANS[kind]) for kind, colour in EVENT.items()]
    handles += [Patch(**_hatched(name), label=f"waits: {name}") for name in LOCK]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


def _step(ax: Axes, events: list[Event], limit: float) -> None:
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


def _aligned(runs: Sequence[Run], value: Any) -> tuple[list[int], list[list[float]]]:
    """The steps at which all runs have a point, and each run's values there."""
    found = [{point["step"]: value(point) for point in run.points} for run in runs]
    steps = sorted(set.intersection(*(set(points) for points in found)))
    return steps, [[points[step] for step in steps] for points in found]


def _of(method: str, k: int = 0, count: int = 1) -> Any:
    """A method's colour, or the k-th of several shades of it."""
    colour = METHOD.get(method, "#CC79A7")
    return shade(colour, k, count) if count > 1 else colour
