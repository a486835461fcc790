"""The paper's three locks, computed from the timeline of one step."""

from __future__ import annotations

import math
from collections.abc import Sequence

from synthgrad_lab.feedforward.profiling import StepEvent


def locks(events: Sequence[StepEvent]) -> list[tuple[int, str, float, float]]:
    """The times of a step in which layers wait for other layers: (layer, lock, start, end) in ms.

    The forward lock lasts until the layer's forward pass starts; the update lock from the end of its forward pass, and
    of a loss of its own, until all layers above have run forwards; the backward lock from then until its backward pass
    starts. A layer whose backward pass starts before the layers above have run has neither of the last two.

    References:
        Jaderberg et al. 2017, section 1: forward, update and backward locking.
    """
    first = {(e["layer"], e["kind"]): e for e in reversed(events)}
    forwards = {layer: e for (layer, kind), e in first.items() if kind == "forward"}
    found = []
    for layer, forward in sorted(forwards.items()):
        found.append((layer, "forward lock", 0.0, forward["start"]))
        backward, loss = first.get((layer, "backward")), first.get((layer, "loss"))
        above = max((e["end"] for k, e in forwards.items() if k > layer), default=math.inf)
        if backward and backward["start"] >= above:
            ready = loss["end"] if loss and loss["end"] <= above else forward["end"]
            found += [(layer, "update lock", ready, above), (layer, "backward lock", above, backward["start"])]
    return found


def first_update(events: Sequence[StepEvent]) -> tuple[float, bool] | None:
    """The end of layer 1's update in ms, and whether it comes before layer 2 runs; None if it is not updated."""
    at = {(e["layer"], e["kind"]): e for e in reversed(events)}
    if not (update := at.get((1, "update"))):
        return None
    return update["end"], (2, "forward") in at and update["end"] <= at[2, "forward"]["start"]


def length(events: Sequence[StepEvent]) -> float:
    """The length of the step in ms; 0 without events."""
    return max((e["end"] for e in events), default=0.0)
