"""A recurrent module trained T steps at a time, with a synthetic gradient for all that comes later."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from synthgrad.interface import Interface
from synthgrad.message import attached
from synthgrad.packing import Leaves, pack, restart, unpack
from synthgrad.quality import Quality, compare
from synthgrad.units import ToldUnit, Unit, root_mean_square

SAMPLED = 10
"""One chunk of so many is measured (and the first so many): for a small state that costs as much as M does."""


class Recurrent(nn.Module):
    r"""The interface between a recurrent module and its own future.

    An endless unrolling is cut into chunks of T steps. At a chunk's end the state h_T is sent: δ̂ = M(h_T) stands
    for the gradient of all later losses. At the next chunk's start the same state is received: M is regressed on
    what arrives there, δ = ∂(the chunk's losses)/∂h₀ + γ (∂h_T/∂h₀)ᵀ δ̂, its own next answer included::

        state = future.receive(state)                        # a chunk starts
        out, state = rnn(x, state)
        loss = criterion(out, y) + future.send(state)        # it ends
        loss.backward()

    Truncated backprop is δ̂ = 0. The state may be a tensor or any nest of them (``pack``); None, a module's own
    first state, teaches M nothing. ``eval()`` makes all of it the identity, which keeps the state's graph.

    Args:
        interface: holds M, which sees the packed state, shape (batch, features).
        scale: factor on δ̂ where the module consumes it (the paper's 0.1). It does not touch M's target: where it
            is not γ, a second, short backward pass from the state to the state puts the difference back.
        gamma: γ, discount of M's own answer in its target; below 1 the target forgets what lies far ahead.
        limit: the largest δ̂, in root mean squares of what a chunk's own losses send down to its start. Where the
            state's dynamics enlarge gradients, M would otherwise chase an ever growing answer of its own. A critic,
            whose answers are a loss' gradients, and a fixed unit have none.
        trust: let δ̂ count for what it has proved to be worth: its factor is ⟨δ̂, δ⟩ / ⟨δ̂, δ̂⟩ over the last hundred
            chunks, from 0 to 1. Where nothing of δ can be predicted, M's noise would otherwise do harm; and as the
            target holds M's own answer by that factor, an answer that only confirms itself dies out.
        batch_dim: the dimension of the batch in the state's tensors (``pack``).
        only: which of the state's tensors make the message, for instance ``(0,)`` for an LSTM's hidden state
            without its cell; the others cross the boundary detached.

    Attributes:
        answer: δ̂ of the last state sent, before ``scale``, shape (batch, features).
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
        if interface.scale != 1:
            raise ValueError(
                f"the interface's scale is {interface.scale} and would discount M's target; give it to Recurrent"
            )
        self.interface = interface
        self.scale, self.gamma, self.limit, self.trust = scale, gamma, limit, trust
        self.batch_dim, self.only = batch_dim, only
        if type(interface.units) is Unit and interface.units.fixed is None:
            interface.units = ToldUnit(None, interface.units.factor, interface.units.decay)
        self.register_buffer("seen", torch.zeros(2))  # running ‖δ̂ - δ‖² and ‖δ‖²
        self.register_buffer("shared", torch.zeros(2))  # the same of ⟨δ̂, δ⟩ and ‖δ̂‖², over fewer chunks
        self.chunks = 0
        self.fused = False
        self.answer: Tensor | None = None
        self.start: Start | None = None
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

    def receive(self, state: Any, context: Any = None, done: Tensor | None = None, initial: Any = None) -> Any:
        """The state at a chunk's start, as a leaf of the chunk's graph; what reaches it teaches M.

        Args:
            state: as the last chunk left it; None to start anew.
            context: what M may also see, a row or a label per example.
            done: for which examples the episode has ended, shape (batch,): they start anew, and M's target is zero.
            initial: the state to start anew from; None is zeros.

        Returns:
            A state of the same form and values.
        """
        self.start = self.answer = None
        if state is None:
            return None
        message = pack(state, self.batch_dim, self.only)
        if self._linked is not None:
            if message.requires_grad:
                self._linked.append((message, context))
        elif self.training:
            message = self._opened(message.detach(), context)
        state = unpack(message, state, self.batch_dim, self.only)
        if done is not None:
            state = restart(state, done, initial, self.batch_dim)
            if self.start is not None:
                self.start.begun = pack(state, self.batch_dim, self.only)
        return state

    def send(self, state: Any, context: Any = None, done: Tensor | None = None) -> Float[Tensor, ""]:
        """The loss term of a chunk's end, ⟨scale·δ̂, h_T⟩.

        Args:
            state: as the chunk leaves it, attached to its graph.
            context: what M may also see.
            done: for which examples the episode ends here, shape (batch,): nothing is sent for them.

        Returns:
            A scalar to add to the chunk's loss. Its value means nothing.
        """
        message = pack(state, self.batch_dim, self.only)
        if self._linked is not None or not self.training:
            return message[:0].sum()
        if done is not None:
            message = torch.where(done.bool()[:, None], message.detach(), message)
        attached(message)
        with torch.no_grad():  # the next chunk starts from a message of its own, so M needs no graph here
            self.answer = self.interface.sent(message, context)
            if isinstance(units := self.interface.units, ToldUnit):
                largest = self.limit * units.value / units.factor
                self.answer = self.answer * (largest / root_mean_square(self.answer)).clamp(max=1).nan_to_num(0.0)
            if self.trust:
                self.answer = self.answer * self.slope
        if done is not None:
            self.answer = self.answer.masked_fill(done.bool()[:, None], 0.0)
        term = message.flatten().dot(self.answer.flatten())
        start, apart = self.start, self.scale != self.gamma
        if start is not None and (apart or (start.measured and not self.fused)) and torch.is_grad_enabled():
            (back,) = torch.autograd.grad(message, start.message, self.answer, retain_graph=True, allow_unused=True)
            if back is not None:
                start.later.append(self.gamma * back)
                if apart:
                    start.missing.append((self.gamma - self.scale) * back)
        return term * self.scale if self.scale != 1 else term

    def forward(self, state: Any, context: Any = None) -> Any:
        """The state between two steps inside a chunk (fused): BP(λ) with the interface's ``lam``; teaches M.

        Put it on the way to the next step only, so that M predicts the later losses and not the step's own.

        References:
            Jaderberg et al. 2017, supplement A.
        """
        if self._linked is not None:
            return state
        self.fused = True  # from now on the way from a chunk's end to its start leads through M
        if self.scale != self.gamma and self.interface.lam < 1:
            raise ValueError(
                f"scale={self.scale}, gamma={self.gamma}: inside a chunk lam alone weighs the two gradients"
            )
        message = self.interface(pack(state, self.batch_dim, self.only), context)
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

    def _opened(self, message: Tensor, context: Any) -> Tensor:
        """The message received; what will arrive is completed by what ``scale`` has left out, and measured."""
        received, prediction = self.interface.received(message, context)
        answer = (prediction * self.interface.units.known).to(received.dtype)
        # The chunk hangs on a view: a gradient that is only asked for (autograd.grad) must not run what follows.
        measured = self.chunks < SAMPLED or self.chunks % SAMPLED == 0
        self.chunks += 1
        self.start = start = Start(received, received.view_as(received), context, measured)
        message, missing, later = start.message, start.missing, start.later
        del start  # a hook that holds its own tensor is never freed

        def arrived(delta: Tensor) -> Tensor:
            delta = sum(missing, delta)
            self._last = answer, delta.detach()
            if measured:
                if isinstance(units := self.interface.units, ToldUnit):
                    units.tell(root_mean_square(delta - sum(later)))
                _follow(self.seen, [(answer - delta).square().sum(), delta.square().sum()], 0.01)
                if self.trust:
                    _follow(self.shared, [(answer * delta).sum(), answer.square().sum()], 0.1)
            return delta

        received.register_hook(arrived)
        return message

    def get_extra_state(self) -> int:
        """How many chunks have begun: which of them are measured depends on it."""
        return self.chunks

    def set_extra_state(self, state: int) -> None:
        """Go back to a ``get_extra_state``."""
        self.chunks = state

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles leave out what belongs to the chunk under way."""
        return {**self.__dict__, "start": None, "answer": None, "_last": None, "_linked": None}


def _follow(mean: Tensor, values: list[Tensor], share: float) -> None:
    """Let a running mean follow; what is not finite is left out."""
    now = torch.stack(values).to(mean)
    after = torch.where(mean.any(), mean.lerp(now, share), now)
    mean.copy_(torch.where(now.isfinite().all(), after, mean))


class Start:
    """A chunk's first state as received, and as the chunk sees it (``begun``: after restarts).

    Of its δ: what belongs to the chunks after it (``later``), and what is missing in it because of ``scale``.
    """

    def __init__(self, received: Tensor, message: Tensor, context: Any, measured: bool):
        self.received, self.message, self.begun, self.context = received, message, message, context
        self.measured = measured
        self.later: list[Tensor] = []
        self.missing: list[Tensor] = []
