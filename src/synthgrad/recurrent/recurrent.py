"""A recurrent module trained T steps at a time, with a synthetic gradient for all that comes later."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils._pytree import tree_flatten

from synthgrad.interface.autograd import pull_back
from synthgrad.interface.compiled import uncompiled
from synthgrad.interface.graph import predict_for_sender
from synthgrad.interface.interface import Interface
from synthgrad.interface.message import check_attached, dot
from synthgrad.interface.numbers import root_mean_square, wide
from synthgrad.interface.regression import gradient_for_sender
from synthgrad.interface.units import Statistics, Unit
from synthgrad.quality import Quality, compare
from synthgrad.recurrent.chunk import Chunk, Start, leading_to
from synthgrad.recurrent.state import Leaves, batch_of_ends, pack, restart, unpack


class RecurrentInterface(Statistics):
    r"""The interface between a recurrent module and its own future.

    An endless unrolling is cut into chunks of T steps. At a chunk's end the state h_T is sent: δ̂ = M(h_T) stands
    for the gradient of all later losses. At the next chunk's start the same state is received: M is regressed on
    what arrives there, δ = ∂(the chunk's losses)/∂h₀ + γ (∂h_T/∂h₀)ᵀ δ̂, its own next answer included::

        state = future.receive(state)                        # a chunk starts
        out, state = rnn(x, state)
        loss = criterion(out, y) + future.send(state)        # it ends
        loss.backward()

    Truncated backprop is δ̂ = 0. The state may be a tensor or any nest of them (``pack``); None, a module's own
    first state, teaches M nothing. ``eval()`` and ``no_grad()`` make all of it the identity, which keeps the
    state's graph. Several streams may be under way at once, as long as each is received before it is sent.

    M's unit follows what a chunk's own losses send down to its start, not M's own answers, which would drive it up.
    To know that part, a chunk in ten, drawn at random, sends nothing for a third of its rows, and M does not
    learn from these. (With a fixed unit, a critic, or a scale that is not γ, nothing is left out.)

    Args:
        interface: holds M, which sees the packed state, shape (batch, features).
        scale: factor on δ̂ where the module consumes it (the paper's 0.1). It does not touch M's target: where it
            is not γ, a second, short backward pass from the state to the state puts the difference back. Interfaces
            inside the chunk do not notice that pass, but your own hooks run in it, too, and a reentrant checkpoint
            inside the chunk is refused by torch.
        gamma: γ, discount of M's own answer in its target; below 1 the target forgets what lies far ahead.
        limit: the largest δ̂, in root mean squares of what a chunk's own losses send down to its start. Where the
            state's dynamics enlarge gradients, M would otherwise chase an ever growing answer of its own. A critic,
            whose answers are a loss' gradients, and a fixed unit have none.
        trust: scale δ̂ by its regression slope on the target, ⟨δ̂, δ⟩ / ⟨δ̂, δ̂⟩ over the last hundred
            chunks, from 0 to 1. Where nothing of δ can be predicted, M's noise would otherwise do harm; and as the
            target holds M's own answer by that factor, an answer that only confirms itself dies out.
        batch_dim: the dimension of the batch in the state's tensors (``pack``).
        only: which of the state's tensors make the message, for instance ``(0,)`` for an LSTM's hidden state
            without its cell; the others cross the boundary detached.

    Attributes:
        answer: δ̂ of the last state sent, before ``scale``, shape (batch, features).
        factor: what ``limit`` and ``trust`` have made of M's own answer there, from 0 to 1.
        quality: the last synthetic gradient against what arrived, the bootstrapped target; None before the first.
        r2: 1 - ⟨‖δ̂ - δ‖²⟩ / ⟨‖δ‖²⟩, running means over a tenth of the last thousand chunks; below 0, δ̂ is
            worse than none, and hurts. NaN before the first.

    References:
        Jaderberg et al. 2017, section 2.1 (recurrent) and Fig. 3; the 0.1 is recalled, not checked.
    """

    seen: Tensor
    shared: Tensor

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
                f"the interface's scale is {interface.scale} and would discount M's target; give it to Recurrent"
            )
        self.interface = interface
        self.scale, self.gamma, self.limit, self.trust = scale, gamma, limit, trust
        self.batch_dim, self.only = batch_dim, only
        if isinstance(interface.units, Unit) and interface.units.fixed is None:
            interface.units.external = True
        self.register_buffer("seen", torch.zeros(2))  # running ‖δ̂ - δ‖² and ‖δ‖²
        self.register_buffer("shared", torch.zeros(2))  # the same of ⟨δ̂, δ⟩ and ‖δ̂‖², over fewer chunks
        self.chunks = 0
        self.answer: Tensor | None = None
        self.factor: float | Tensor = 1.0
        self.unit: float | Tensor = 1.0  # of the answer
        self.paired = True  # whether the chunk sent last is the one received last
        self.start: Start | None = None
        self._numbers: list[tuple[weakref.ref[Tensor], int]] = []  # chunks by the state they began with
        self._last: tuple[Tensor, Tensor] | None = None
        self._linked: list[tuple[Tensor, Any]] | None = None

    @property
    def quality(self) -> Quality | None:
        """Of the last synthetic gradient."""
        return compare(*self._last) if self._last is not None else None

    @property
    def r2(self) -> float:
        """Share of the target that M explains, over some hundred chunks."""
        error, size = self.seen.tolist()
        return 1 - error / size if size > 0 else math.nan

    @property
    def slope(self) -> Tensor:
        """⟨δ̂, δ⟩ / ⟨δ̂, δ̂⟩ over the last hundred chunks, from 0 to 1: δ̂'s factor with ``trust``; 1 before any."""
        return (self.shared[0] / self.shared[1]).clamp(0, 1).nan_to_num(1.0)

    @uncompiled
    def receive(self, state: Any, context: Any = None, done: Tensor | None = None, initial: Any = None) -> Any:
        """The state at a chunk's start, as a leaf of the chunk's graph; what reaches it teaches M.

        Args:
            state: as the last chunk left it; None to start anew.
            context: what M may also see, a row or a label per example.
            done: for which examples the episode has ended, shape (batch,): they start anew, and M's target is zero.
            initial: the state to start anew from; None is zeros.

        Returns:
            A state of the same form and values.

        Raises:
            ValueError: if ``done`` has another shape.
        """
        again = self._again(state)
        if again is None:
            self.start = self.answer = None
        if state is None:
            return None
        start, given = None, state
        if self._linked is not None or self._learning:
            message = pack(state, self.batch_dim, self.only)
            if self._linked is None:
                start = self._opened(message.detach(), context, again)
                if again is None:
                    first = _first(given)
                    living = [each for each in self._numbers if each[0]() is not None and each[0]() is not first]
                    self._numbers = [*living, (weakref.ref(first), self.chunks - 1)]
                message = start.message
            elif message.requires_grad:
                self._linked.append((message, context))
            state = unpack(message, state, self.batch_dim, self.only)
        if done is not None:
            state = restart(state, done, initial, self.batch_dim)
            if start is not None:
                start.begun = pack(state, self.batch_dim, self.only)
        return state

    @uncompiled
    def send(self, state: Any, context: Any = None, done: Tensor | None = None) -> Float[Tensor, ""]:
        """The loss term of a chunk's end, ⟨scale·δ̂, h_T⟩.

        Args:
            state: as the chunk leaves it, attached to its graph.
            context: what M may also see.
            done: for which examples the episode ends here, shape (batch,): nothing is sent for them.

        Returns:
            A scalar to add to the chunk's loss. Its value means nothing.

        Raises:
            ValueError: if the state is detached, or ``done`` has another shape.
        """
        message = pack(state, self.batch_dim, self.only)
        if self._linked is not None or not self._learning:
            return message[:0].sum()
        ends = None if done is None else batch_of_ends(done, len(message))[:, None]
        if ends is not None:
            message = torch.where(ends, message.detach(), message)
        check_attached(message)
        chunks = list(leading_to(message))
        again = torch._C._current_graph_task_id() >= 0 and any(c.again or c.sent for c, _ in chunks)
        with torch.no_grad():
            found = predict_for_sender(self.interface, message, context)
            answer = gradient_for_sender(self.interface, found.prediction, found.unit, found.good, message.dtype)
            factor = self._factor(answer)
            answer = answer * factor
            if ends is not None:
                answer = answer.masked_fill(ends, 0.0)
        if not again:  # and an activation checkpoint does not run this once more, on the way back
            self.answer, self.unit, self.factor = answer, found.unit, factor
            self.paired = not chunks or any(self.start is not None and c is self.start.chunk for c, _ in chunks)
        return dot(message, self._left_out(message, answer, chunks, again)) * self.scale

    def _factor(self, answer: Tensor) -> float | Tensor:
        factor, units = 1.0, self.interface.units
        if isinstance(units, Unit) and units.external:
            largest = self.limit * units.for_batch(len(answer)) / units.factor
            factor = (largest / root_mean_square(answer)).clamp(max=1).nan_to_num(0.0)
        return factor * self.slope if self.trust else factor

    def _left_out(self, message: Tensor, answer: Tensor, chunks: list[tuple[Chunk, Any]], again: bool) -> Tensor:
        """What is really sent: nothing for the rows that are measured. Notes what the chunk's start must know."""
        apart, units, sent = self.scale != self.gamma, self.interface.units, answer
        for chunk, edge in chunks:
            chunk.sent = chunk.whole = True
            if isinstance(units, Unit) and units.ready:
                chunk.blind = False
            if chunk.rows is not None and len(chunk.rows) != len(answer):
                chunk.rows = None  # examples have left the batch: which is which is not known
            if chunk.rows is not None:
                sent = sent.masked_fill(chunk.rows[:, None], 0.0)
            elif apart and not again and (back := pull_back(message, edge, answer)) is not None:
                chunk.later.append(self.gamma * back)
                chunk.missing.append((self.gamma - self.scale) * back)
        return sent

    @uncompiled
    def forward(self, state: Any, context: Any = None) -> Any:
        """The state between two steps inside a chunk (fused): BP(λ) with the interface's ``lam``; teaches M.

        Put it on the way to the next step only, so that M predicts the later losses and not the step's own.

        References:
            Jaderberg et al. 2017, supplement A.
        """
        if self._linked is not None or not self._learning:
            return state
        if self.scale != self.gamma and self.interface.lam < 1:
            raise ValueError(
                f"scale={self.scale}, gamma={self.gamma}: inside a chunk lam alone weighs the two gradients"
            )
        message, omitted = pack(state, self.batch_dim, self.only), None
        for chunk, _ in leading_to(message):
            chunk.fused = True  # from here on the way from the chunk's end to its start leads through M
            if chunk.rows is not None and len(chunk.rows) == len(message):
                omitted = chunk.rows
        message = self.interface(message, context, omitted)
        return unpack(message, state, self.batch_dim, self.only)

    def probe(self, episode: Callable[[], Tensor]) -> list[Quality]:
        """The synthetic gradients of an episode against those of full backpropagation through time, undiscounted.

        Args:
            episode: runs its chunks as in training (``receive`` and ``send`` are called, and let everything through
                here) and returns the sum of their losses, reduced as in training.

        Returns:
            One per boundary, first to last.
        """
        with self._linking() as boundaries:
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
    def _linking(self) -> Iterator[list[tuple[Tensor, Any]]]:
        self._linked = []
        try:
            yield self._linked
        finally:
            self._linked = None

    @property
    def _learning(self) -> bool:
        return self.training and torch.is_grad_enabled()

    def _again(self, state: Any) -> int | None:
        """The number of the chunk that an activation checkpoint runs again, on the way back; None for a new one."""
        if state is None or torch._C._current_graph_task_id() < 0:
            return None
        first = _first(state)
        return next((number for ref, number in self._numbers if ref() is first), None)

    def _opened(self, message: Tensor, context: Any, again: int | None) -> Start:
        """A chunk begins. What will arrive is completed by what ``scale`` has left out, and measured."""
        received, prediction = self.interface.receive_with_prediction(message, context)
        arrival: Any = getattr(received.grad_fn, "arrival")  # noqa: B009
        answer = (wide(prediction) * arrival.unit).to(message.dtype)
        units, apart = self.interface.units, self.scale != self.gamma
        told = isinstance(units, Unit) and units.external
        chunk = Chunk(
            self.chunks if again is None else again,
            len(message),
            message.device,
            apart or not told,
            told and not units.ready,
            torch._C._current_graph_task_id() < 0,
        )
        chunk.again, arrival.chunk = again is not None, chunk
        # The chunk hangs on a view: a gradient that is only asked for (autograd.grad) must not run what follows.
        start = Start(received, received.view_as(received), context, chunk)
        if again is None:
            self.chunks += 1
            self.start = start
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
        return start

    @torch.no_grad()
    def _measure(self, chunk: Chunk, answer: Tensor, delta: Tensor) -> None:
        """Compare what was expected at a chunk's start with what arrived; let M's unit follow the losses' part."""
        units = self.interface.units
        if chunk.measured and isinstance(units, Unit) and units.external:
            own = chunk.own(delta, self.scale != self.gamma)
            if own is not None:
                chunk.taken = units.observe(root_mean_square(own), len(delta), chunk.taken)
        if chunk.rows is not None and chunk.sent:
            if chunk.rows.all():
                return
            answer, delta = answer[~chunk.rows], delta[~chunk.rows]
        self._last = answer, delta
        if not chunk.measured or chunk.arrived:
            return
        answer, delta = wide(answer), wide(delta)
        _follow(self.seen, [(answer - delta).square().sum(), delta.square().sum()], 0.01)
        if self.trust:
            _follow(self.shared, [(answer * delta).sum(), answer.square().sum()], 0.1)

    def get_extra_state(self) -> Tensor:
        """How many chunks have begun: which of them are measured depends on it."""
        return torch.tensor(self.chunks)

    def set_extra_state(self, state: Tensor) -> None:
        """Go back to a ``get_extra_state``."""
        self.chunks = int(state)

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles leave out what belongs to the chunk under way."""
        passing = {"start": None, "answer": None, "_last": None, "_linked": None, "_numbers": []}
        return {**self.__dict__, **passing}


def _first(state: Any) -> Tensor:
    return tree_flatten(state)[0][0]


def _follow(mean: Tensor, values: list[Tensor], share: float) -> None:
    """Let a running mean follow; what is not finite is left out."""
    now = torch.stack(values).to(mean)
    after = torch.where(mean.any(), mean.lerp(now, share), now)
    mean.copy_(torch.where(now.isfinite().all(), after, mean))
