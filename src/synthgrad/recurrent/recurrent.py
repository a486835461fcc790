"""A recurrent module trained T steps at a time, with a synthetic gradient for all that comes later."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from synthgrad.interface.compiled import uncompiled
from synthgrad.interface.graph import predict_for_sender
from synthgrad.interface.interface import Interface
from synthgrad.interface.message import check_attached, dot
from synthgrad.interface.regression import gradient_for_sender
from synthgrad.quality import Quality, compare
from synthgrad.recurrent.bootstrap import BootstrappedRegression
from synthgrad.recurrent.chunk import Start, leading_to
from synthgrad.recurrent.state import Leaves, check_done, pack, restart, unpack


class RecurrentInterface(BootstrappedRegression):
    r"""The interface between a recurrent module and its own future.

    An endless unrolling is cut into chunks of T steps. At a chunk's end the state h_T is sent: δ̂ = M(h_T) stands
    for the gradient of all later losses. At the next chunk's start the same state is received: M is regressed on
    what arrives there, δ = ∂(the chunk's losses)/∂h₀ + γ (∂h_T/∂h₀)ᵀ δ̂, which contains M's own next prediction::

        state = future.receive(state)                        # a chunk starts
        out, state = rnn(x, state)
        loss = criterion(out, y) + future.send(state)        # it ends
        loss.backward()

    Truncated backprop is δ̂ = 0. The state may be a tensor or any nest of them (``pack``); None, a module's own
    first state, teaches M nothing. In ``eval()`` and ``no_grad()`` every call is the identity, which keeps the
    state's graph. Several streams may be under way at once, as long as each is received before it is sent.

    M's unit measures only what a chunk's own losses send to its start. M's own predictions would drive it up. To
    separate the two, one chunk in ten, drawn at random, sends nothing for a third of its rows, and M does not learn
    from these. (With a fixed unit, a critic, or a scale that is not γ, all rows are sent.)

    Args:
        interface: holds M, which sees the packed state, shape (batch, features).
        scale: factor on δ̂ where the module consumes it (the paper's 0.1). It does not touch M's target: where it
            is not γ, a second, short backward pass from the state to the state adds the difference. Interfaces
            inside the chunk ignore that pass, but your own hooks run in it, too, and torch refuses a reentrant
            checkpoint inside the chunk.
        gamma: γ, discount of M's own prediction in its target; below 1 the target forgets what lies far ahead.
        limit: the largest δ̂, in root mean squares of what a chunk's own losses send to its start. Where the
            state's dynamics enlarge gradients, M would otherwise chase an ever growing prediction of its own. It
            does not apply to a critic, which predicts a loss's gradients, or to a fixed unit.
        trust: scale δ̂ by its regression slope on the target, ⟨δ̂, δ⟩ / ⟨δ̂, δ̂⟩ over about ten measured chunks,
            from 0 to 1. If δ cannot be predicted, M's noise would otherwise do harm; and since M's own prediction
            enters the target with that factor, one that only confirms itself dies out.
        batch_dim: the dimension of the batch in the state's tensors (``pack``).
        only: the places of the state's tensors that make the message, for instance ``(0,)`` for an LSTM's hidden
            state without its cell; the others cross the boundary detached.

    Attributes:
        answer: δ̂ of the last state sent, before ``scale``, shape (batch, features).
        factor: the factor from 0 to 1 that ``limit`` and ``trust`` gave that δ̂.

    References:
        Jaderberg et al. 2017, section 2.1 (recurrent) and Fig. 3; the 0.1 is recalled, not checked.
    """

    def __init__(
        self,
        interface: Interface,
        scale: float = 1.0,
        gamma: float = 1.0,
        limit: float = 10.0,
        *,
        trust: bool = False,
        batch_dim: int | None = None,
        only: Leaves = None,
    ):
        super().__init__(interface, scale, gamma, limit, trust)
        self.batch_dim, self.only = batch_dim, only
        self.answer: Tensor | None = None
        self.factor: float | Tensor = 1.0
        self.unit: float | Tensor = 1.0  # of the answer
        self.paired = True  # whether the chunk sent last is the one received last
        self.start: Start | None = None
        self._recorded: list[tuple[Tensor, Any]] | None = None

    @uncompiled
    def receive(self, state: Any, context: Any = None, done: Tensor | None = None, initial: Any = None) -> Any:
        """The state at a chunk's start, as a leaf of the chunk's graph; what reaches it teaches M.

        Args:
            state: as the last chunk left it; None at the beginning.
            context: what M may also see, a row or a label per example.
            done: examples whose episode has ended, shape (batch,): their state is reset, and M's target is zero.
            initial: the state to reset them to; None is zeros.

        Returns:
            A state of the same form and values.

        Raises:
            ValueError: if ``done`` has another shape.
        """
        rerun = self.numbers.rerun(state)
        if rerun is None:
            self.start = self.answer = None
        if state is None:
            return None
        start = None
        if self._recorded is not None or self._learning:
            message = pack(state, self.batch_dim, self.only)
            if self._recorded is None:
                start = self._open_chunk(message.detach(), context, state, rerun)
                self.start = start if rerun is None else self.start
                message = start.message
            elif message.requires_grad:
                self._recorded.append((message, context))
            state = unpack(message, state, self.batch_dim, self.only)
        if done is not None:
            state = restart(state, done, initial, self.batch_dim)
            if start is not None:
                start.restarted = pack(state, self.batch_dim, self.only)
        return state

    @uncompiled
    def send(self, state: Any, context: Any = None, done: Tensor | None = None) -> Float[Tensor, ""]:
        """The loss term of a chunk's end, ⟨scale·δ̂, h_T⟩.

        Args:
            state: as the chunk leaves it, attached to its graph.
            context: what M may also see.
            done: examples whose episode ends here, shape (batch,): nothing is sent for them.

        Returns:
            A scalar to add to the chunk's loss. Its value means nothing.

        Raises:
            ValueError: if the state is detached, or ``done`` has another shape.
        """
        message = pack(state, self.batch_dim, self.only)
        if self._recorded is not None or not self._learning:
            return message[:0].sum()
        ends = None if done is None else check_done(done, len(message))[:, None]
        if ends is not None:
            message = torch.where(ends, message.detach(), message)
        check_attached(message)
        chunks = list(leading_to(message))
        rerun = torch._C._current_graph_task_id() >= 0 and any(c.rerun or c.sent for c, _ in chunks)
        with torch.no_grad():
            found = predict_for_sender(self.interface, message, context)
            answer = gradient_for_sender(self.interface, found.prediction, found.unit, found.good, message.dtype)
            factor = self._factor(answer)
            answer = answer * factor
            if ends is not None:
                answer = answer.masked_fill(ends, 0.0)
        if not rerun:  # by an activation checkpoint, in the backward pass
            self.answer, self.unit, self.factor = answer, found.unit, factor
            self.paired = not chunks or any(self.start is not None and c is self.start.chunk for c, _ in chunks)
        return dot(message, self._withhold_measured(message, answer, chunks, rerun)) * self.scale

    @uncompiled
    def forward(self, state: Any, context: Any = None) -> Any:
        """The state between two steps inside a chunk (fused): BP(λ) with the interface's ``lam``; teaches M.

        Put it on the way to the next step only, so that M predicts the later losses and not the step's own.

        References:
            Jaderberg et al. 2017, supplement A.
        """
        if self._recorded is not None or not self._learning:
            return state
        if self.scale != self.gamma and self.interface.lam < 1:
            raise ValueError(
                f"scale={self.scale}, gamma={self.gamma}: inside a chunk lam alone weighs the two gradients"
            )
        message, omitted = pack(state, self.batch_dim, self.only), None
        for chunk, _ in leading_to(message):
            chunk.fused = True  # now a path from the chunk's end to its start runs through M
            if chunk.rows is not None and len(chunk.rows) == len(message):
                omitted = chunk.rows
        message = self.interface(message, context, omitted)
        return unpack(message, state, self.batch_dim, self.only)

    def probe(self, episode: Callable[[], Tensor]) -> list[Quality]:
        """The synthetic gradients of an episode against those of full backpropagation through time, undiscounted.

        Args:
            episode: runs its chunks as in training and returns the sum of their losses, reduced as in training;
                ``receive`` and ``send`` let all gradients through here.

        Returns:
            One per boundary, first to last.
        """
        with self._recording() as boundaries:
            with torch.enable_grad():
                loss = episode()
            messages = [message for message, _ in boundaries]
            true = torch.autograd.grad(loss, messages, allow_unused=True) if messages else []
            zero = [torch.zeros_like(h) if g is None else g for h, g in zip(messages, true, strict=True)]
        return [
            compare(self.interface.synthetic_gradient(h, context), delta)
            for (h, context), delta in zip(boundaries, zero, strict=True)
        ]

    @contextmanager
    def _recording(self) -> Iterator[list[tuple[Tensor, Any]]]:
        """Within the block every call is the identity, and lists each boundary's message and context."""
        self._recorded = []
        try:
            yield self._recorded
        finally:
            self._recorded = None

    @property
    def _learning(self) -> bool:
        return self.training and torch.is_grad_enabled()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out of copies and pickles what belongs to the chunk under way."""
        return {**self.__dict__, "start": None, "answer": None, "_recorded": None}
