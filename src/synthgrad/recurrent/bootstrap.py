"""The bootstrapped target of a recurrent M: its own next prediction is part of what it is regressed on."""

from __future__ import annotations

import math
import weakref
from typing import Any

import torch
from torch import Tensor, nn

from synthgrad.interface.autograd import pull_back
from synthgrad.interface.interface import Interface
from synthgrad.interface.numbers import root_mean_square, wide
from synthgrad.interface.units import Unit
from synthgrad.quality import Quality
from synthgrad.recurrent.agreement import Agreement
from synthgrad.recurrent.chunk import Chunk, ChunkNumbers, Start


class BootstrappedRegression(nn.Module):
    """The regression of an interface's M on the gradients at chunk starts.

    ``RecurrentInterface`` adds the verbs, and documents the arguments.
    """

    def __init__(self, interface: Interface, scale: float, gamma: float, limit: float, trust: bool):
        super().__init__()
        if not 0 <= gamma <= 1:
            raise ValueError(f"gamma is {gamma}; it discounts the bootstrapped target and must be from 0 to 1")
        if not 0 <= scale < math.inf:
            raise ValueError(
                f"scale is {scale}; it weighs the synthetic gradient and must be a number of at least 0"
            )
        if not limit > 0:
            raise ValueError(
                f"limit is {limit}; it bounds the synthetic gradient and must be above 0 (math.inf is none)"
            )
        if interface.scale != 1:
            raise ValueError(
                f"the interface's scale is {interface.scale} and would discount M's target; give it to "
                "RecurrentInterface"
            )
        self.interface = interface
        self.scale, self.gamma, self.limit, self.trust = scale, gamma, limit, trust
        if isinstance(interface.units, Unit) and interface.units.fixed is None:
            interface.units.external = True
        self.agreement = Agreement()
        self.numbers = ChunkNumbers()

    @property
    def quality(self) -> Quality | None:
        """The last synthetic gradient against what arrived, the bootstrapped target; None before the first."""
        return self.agreement.quality

    @property
    def r2(self) -> float:
        """1 - ⟨‖δ̂ - δ‖²⟩ / ⟨‖δ‖²⟩ over about a thousand chunks; below 0, δ̂ does harm. NaN before the first."""
        return self.agreement.r2

    @property
    def slope(self) -> Tensor:
        """⟨δ̂, δ⟩ / ⟨δ̂, δ̂⟩ over about a hundred chunks, from 0 to 1: the factor of ``trust``; 1 before the first."""
        return self.agreement.slope

    def _open_chunk(self, message: Tensor, context: Any, state: Any, rerun: int | None) -> Start:
        """Receive a chunk's first state; its gradient is completed by what ``scale`` has left out, and measured.

        Args:
            message: the packed state, detached.
            context: what M may also see.
            state: the state itself.
            rerun: the chunk's number, if an activation checkpoint runs it again.
        """
        received, prediction = self.interface.receive_with_prediction(message, context)
        arrival: Any = getattr(received.grad_fn, "arrival")  # noqa: B009
        answer = (wide(prediction) * arrival.unit).to(message.dtype)
        units = self.interface.units
        external = isinstance(units, Unit) and units.external
        blind, whole = external and not units.ready, torch._C._current_graph_task_id() < 0
        number = self.numbers.begin(state) if rerun is None else rerun
        separate = self.scale != self.gamma or not external
        chunk = Chunk(number, len(message), message.device, separate, blind, whole)
        chunk.rerun, arrival.chunk = rerun is not None, chunk
        me = weakref.ref(self)  # a hook that holds its own tensor, or its owner, is never freed

        def arrived(delta: Tensor) -> Tensor:
            delta = sum(chunk.missing, delta)
            chunk.missing = []
            chunk.given = delta.detach() if chunk.given is None else chunk.given + delta.detach()
            if chunk.rows is not None and chunk.sent:
                arrival.omitted = chunk.rows
            if (future := me()) is not None:
                future._measure(chunk, answer, chunk.given)
            chunk.arrived = True
            return delta

        received.register_hook(arrived)
        # The chunk hangs on a view, so that autograd.grad for the view alone does not run the hook.
        return Start(received, received.view_as(received), context, chunk)

    @torch.no_grad()
    def _measure(self, chunk: Chunk, answer: Tensor, delta: Tensor) -> None:
        """Compare δ̂ at a chunk's start with the δ that arrived; update M's unit by the chunk's own losses."""
        units = self.interface.units
        if chunk.measured and isinstance(units, Unit) and units.external:
            own = chunk.own(delta, self.scale != self.gamma)
            if own is not None:
                chunk.unit_update = units.observe(root_mean_square(own), len(delta), chunk.unit_update)
        if chunk.rows is not None and chunk.sent:
            if chunk.rows.all():
                return
            answer, delta = answer[~chunk.rows], delta[~chunk.rows]
        self.agreement.last = answer, delta
        if chunk.measured and not chunk.arrived:
            self.agreement.update(answer, delta, self.trust)

    def _factor(self, answer: Tensor) -> float | Tensor:
        """The factor on δ̂ by ``limit`` and ``trust``."""
        factor, units = 1.0, self.interface.units
        if isinstance(units, Unit) and units.external:
            largest = self.limit * units.for_batch(len(answer)) / units.factor
            factor = (largest / root_mean_square(answer)).clamp(max=1).nan_to_num(0.0)
        return factor * self.slope if self.trust else factor

    def _withhold_measured(
        self, message: Tensor, answer: Tensor, chunks: list[tuple[Chunk, Any]], rerun: bool
    ) -> Tensor:
        """Zero δ̂ at a chunk's end for the rows that are measured; record the share that the start's gradient lacks.

        Args:
            message: the packed state at the end.
            answer: δ̂ for it.
            chunks: the chunks that lead to it, with their starts (``leading_to``).
            rerun: whether an activation checkpoint runs the end again.
        """
        units, sent = self.interface.units, answer
        for chunk, edge in chunks:
            chunk.sent = chunk.whole = True
            if isinstance(units, Unit) and units.ready:
                chunk.blind = False
            if chunk.rows is not None and len(chunk.rows) != len(answer):
                chunk.rows = None  # examples have left the batch, so rows can't be matched any more
            if chunk.rows is not None:
                sent = sent.masked_fill(chunk.rows[:, None], 0.0)
            elif self.scale != self.gamma and not rerun:
                back = pull_back(message, edge, answer)
                if back is not None:
                    chunk.later.append(self.gamma * back)
                    chunk.missing.append((self.gamma - self.scale) * back)
        return sent

    def get_extra_state(self) -> Tensor:
        """The number of chunks so far, which decides which ones are measured."""
        return torch.tensor(self.numbers.count)

    def set_extra_state(self, state: Tensor) -> None:
        """Restore a ``get_extra_state``."""
        self.numbers.count = int(state)
