"""Records about one chunk of a recurrent module, from its first state to that state's gradient."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge
from torch.utils._pytree import tree_flatten

from synthgrad.interface.numbers import wide
from synthgrad.interface.units import UnitUpdate

SAMPLED = 10
"""One chunk in ten is measured, at random, and so are the first ten: it can cost as much as M itself."""
OMITTED = 3
"""In a measured chunk one row in three sends nothing: its gradient comes from the chunk's own losses alone."""


class Chunk:
    """A chunk under way. It outlives its interface's next ``receive`` only as long as the chunk's own graph.

    Args:
        number: number of chunks before it.
        size: examples in its batch.
        device: of its state.
        separate: whether no rows need be omitted, because a second backward pass separates the chunk's own losses
            from what was sent, or because nothing needs them.
        blind: whether the unit is not known yet, so that nothing can be sent.
        whole: whether everything sent from the chunk is known, so that rows can be omitted. A chunk that begins in
            a backward pass (a reentrant checkpoint) and is sent outside of it is whole only when it has been sent.
    """

    def __init__(
        self, number: int, size: int, device: torch.device, separate: bool, blind: bool, whole: bool = True
    ):
        draw = _draw(number)
        self.number, self.blind, self.whole = number, blind, whole
        self.measured = number < SAMPLED or draw % SAMPLED == 0
        self.rows: Tensor | None = None
        """Rows whose own losses are measured, shape (batch,); None is all, if own losses can be separated."""
        if self.measured and not separate and not blind:
            self.rows = (torch.arange(size, device=device) + draw // SAMPLED) % OMITTED == 0
        self.fused = self.sent = self.arrived = self.rerun = False
        self.given: Tensor | None = None
        """The sum of the gradients that have arrived."""
        self.unit_update: UnitUpdate | None = None
        """The change that they have made to the unit."""
        self.later: list[Tensor] = []
        """The share of the start's gradient that comes from what was sent."""
        self.missing: list[Tensor] = []
        """The share that is missing in the start's gradient because of ``scale``."""

    def own(self, delta: Tensor, separate: bool) -> Tensor | None:
        """The part of the start's gradient that comes from the chunk's own losses, or None if it is not known."""
        if self.rows is not None:
            return delta[self.rows] if self.whole else None
        if self.blind or not separate:
            return delta if self.blind else None
        own = wide(delta) - sum(wide(later) for later in self.later)
        # Rounding leaves small differences, which are no gradient.
        share = min(1000 * torch.finfo(delta.dtype).eps, 0.05)
        return own.masked_fill(own.abs() <= share * own.new_tensor(delta.abs().amax().item()), 0.0)


class Start:
    """A chunk's first state: ``received``, the ``message`` seen by the chunk, ``restarted`` after restarts."""

    def __init__(self, received: Tensor, message: Tensor, context: Any, chunk: Chunk):
        self.received, self.message, self.restarted, self.context = received, message, message, context
        self.chunk = chunk


class ChunkNumbers:
    """Numbers the chunks, and recognises one that an activation checkpoint runs again in the backward pass."""

    def __init__(self) -> None:
        self.count = 0
        self.living: list[tuple[weakref.ref[Tensor], int]] = []
        """Each living chunk's first tensor, by which a rerun is recognised, and its number."""

    def begin(self, state: Any) -> int:
        """Count a chunk that begins with a state, and return its number."""
        first = _first(state)
        living = [each for each in self.living if each[0]() is not None and each[0]() is not first]
        self.living = [*living, (weakref.ref(first), self.count)]
        self.count += 1
        return self.count - 1

    def rerun(self, state: Any) -> int | None:
        """The number of the chunk that is run again with this state; None for a new chunk."""
        if state is None or torch._C._current_graph_task_id() < 0:
            return None
        first = _first(state)
        return next((number for ref, number in self.living if ref() is first), None)

    def __getstate__(self) -> dict[str, Any]:
        """Leave living chunks out of copies and pickles."""
        return {"count": self.count, "living": []}


def leading_to(end: Tensor) -> Iterator[tuple[Chunk, GradientEdge]]:
    """The chunks whose starts lead to the state at ``end``, with each start's place in its graph."""
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
    """A pseudo-random number for each chunk number, so that measuring cannot fall in step with the data."""
    x = (number + 1) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    return x ^ x >> 27


def _first(state: Any) -> Tensor:
    return tree_flatten(state)[0][0]
