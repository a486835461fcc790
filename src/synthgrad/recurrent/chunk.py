"""What is noted about one chunk of a recurrent module, from the state it starts with to that state's gradient."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from synthgrad.interface.numbers import wide

if TYPE_CHECKING:
    from synthgrad.interface.units import UnitUpdate

SAMPLED = 10
"""One chunk in ten is measured, at random, and so are the first ten: on a small state it costs as much as M."""
OMITTED = 3
"""In a measured chunk nothing is sent for one row in three: there the chunk's own losses arrive alone."""


class Chunk:
    """A chunk under way. It outlives its interface's next ``receive`` only as long as the chunk's own graph.

    Args:
        number: how many chunks were before it.
        size: examples in its batch.
        device: of its state.
        apart: whether a second backward pass tells the chunk's own losses from what was sent.
        blind: whether no unit is known yet, so that nothing can be sent.
        whole: whether all that is sent from it is known, so that rows can be left out. It is not for a chunk that
            begins in a backward pass (a reentrant checkpoint) and is sent outside of it, until it is sent.
    """

    def __init__(self, number: int, size: int, device: torch.device, apart: bool, blind: bool, whole: bool = True):
        draw = _draw(number)
        self.number, self.blind, self.whole = number, blind, whole
        self.measured = number < SAMPLED or draw % SAMPLED == 0
        self.rows: Tensor | None = None
        """Whose own losses are measured, shape (batch,); None are all, if the losses can be told apart."""
        if self.measured and not apart and not blind:
            self.rows = (torch.arange(size, device=device) + draw // SAMPLED) % OMITTED == 0
        self.fused = self.sent = self.arrived = self.again = False
        self.given: Tensor | None = None
        """The sum of the gradients that have arrived."""
        self.taken: UnitUpdate | None = None
        """What they have made of the unit."""
        self.later: list[Tensor] = []
        """The share of the start's gradient that comes from what was sent."""
        self.missing: list[Tensor] = []
        """What is missing in the start's gradient because of ``scale``."""

    def own(self, delta: Tensor, apart: bool) -> Tensor | None:
        """The part of the start's gradient that comes from the chunk's own losses, or None if it is not known."""
        if self.rows is not None:
            return delta[self.rows] if self.whole else None
        if self.blind or not apart:
            return delta if self.blind else None
        own = wide(delta) - sum(wide(later) for later in self.later)
        # What is left by rounding is no gradient.
        share = min(1000 * torch.finfo(delta.dtype).eps, 0.05)
        return own.masked_fill(own.abs() <= share * own.new_tensor(delta.abs().amax().item()), 0.0)


class Start:
    """A chunk's first state as received, and as the chunk sees it (``begun``: after restarts)."""

    def __init__(self, received: Tensor, message: Tensor, context: Any, chunk: Chunk):
        self.received, self.message, self.begun, self.context = received, message, message, context
        self.chunk = chunk


def leading_to(end: Tensor) -> Iterator[tuple[Chunk, GradientEdge]]:
    """The chunks that the state at ``end`` comes from, and where each one's start is in its graph."""
    waiting: list[Any] = [end.grad_fn]
    seen = {end.grad_fn}
    while waiting:
        node = waiting.pop()
        if node is None:
            continue
        for below, _ in node.next_functions:
            if below is None or below in seen:
                continue
            seen.add(below)
            chunk = getattr(getattr(below, "arrival", None), "chunk", None)
            if chunk is None:
                waiting.append(below)
            else:
                yield chunk, GradientEdge(node, 0)


def _draw(number: int) -> int:
    """A number that looks random, and is the same for the same chunk: no period of the data can agree with it."""
    x = (number + 1) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    return x ^ x >> 27
