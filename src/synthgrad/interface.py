"""The interface on an edge A → B of a network: what A learns from while B has not answered yet."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from synthgrad.edge import Edge
from synthgrad.message import Answer, ask, attached, checked, dot
from synthgrad.target import Target
from synthgrad.units import LossUnit, Unit, root_mean_square

GradientModel = Callable[[Tensor, Any], Tensor]
"""``M(h, context)``: predicts the gradient of ``h``, in its shape and in the interface's units."""

InputModel = Callable[[Any], Tensor]
"""``I(source)``: predicts the message itself, for a receiver that does not wait for it."""


class Interface(nn.Module):
    r"""A decoupled neural interface: M(h, c) predicts the gradient δ that the message h will receive.

    Three verbs place it (Fig. 1 of the paper *is* this API)::

        A:  loss_A = interface.send(h, context)      ⟨δ̂, h⟩ with δ̂ = M(h, c) held fixed: ∂loss_A/∂h = δ̂
        B:  h      = interface.receive(h, context)   h as a new leaf; when δ reaches it, M is regressed on δ
            h      = interface(h, context)           both inside one graph: passes λδ + (1-λ)δ̂ on

    M works in units of the gradient's own size, which the interface follows (``unit``), so
    nothing changes when the loss is a mean, a sum or a multiple. δ̂ carries whatever factor the arriving
    gradients carry: a term from ``send`` must never be scaled again (by a GradScaler, say).

    M's parameters get their gradients, of ‖M(h, c) - δ/unit‖² averaged over the batch, in the same
    backward pass that brings δ; an optimizer of your own moves them. ``eval()`` makes all of it the identity.

    Args:
        gradient_model: M, anything callable as ``M(h, context)`` that answers in the shape of h.
        input_model: I, anything callable as ``I(source)``; needed only to run without a message.
        lam: λ of BP(λ), used by the fused call: 1 is backprop, bit for bit; 0 is DNI.
        scale: factor on δ̂ where the sender consumes it. It never touches M's target.
        target_every: senders consume δ̂ of a copy of M, taken anew after so many gradients; 0 is no copy.
        unit: None follows the gradient; a number fixes the unit (1.0: raw gradients).
        unit_factor: the unit in root mean squares of the gradient. At 32 M's targets are of size 1/32: what
            Adam at a usual rate can move M by in a few steps, since M must keep up with the parts (docs/log.md).
        unit_decay: how much of the mean square is kept per gradient that arrives.

    Attributes:
        skipped: how many gradients were not finite and taught M nothing.

    Example:
        >>> interface = Interface(Linear(256, context=10))
        >>> (interface.send(h, y)).backward()                      # A is done
        >>> criterion(B(interface.receive(h, y)), y).backward()    # B, whenever it likes

    References:
        Jaderberg et al. 2017 (arXiv 1608.05343), Fig. 1 and section 2.1; supplement A for λ.
    """

    skipped: Tensor

    def __init__(
        self,
        gradient_model: GradientModel,
        input_model: InputModel | None = None,
        lam: float = 0.0,
        scale: float = 1.0,
        *,
        target_every: int = 0,
        unit: float | None = None,
        unit_factor: float = 32.0,
        unit_decay: float = 0.99,
    ):
        super().__init__()
        if not 0 <= lam <= 1:
            raise ValueError(f"lam is {lam}; it mixes two gradients and must be from 0 (DNI) to 1 (backprop)")
        self.gradient_model = gradient_model
        self.input_model = input_model
        self.lam, self.scale = lam, scale
        self.target = Target(gradient_model, target_every) if target_every else None
        brought = getattr(gradient_model, "units", None)  # a critic knows its unit
        self.units = brought if isinstance(brought, LossUnit) else Unit(unit, unit_factor, unit_decay)
        self.register_buffer("skipped", torch.tensor(0), persistent=False)
        self._seen: tuple[Tensor, Tensor, Tensor] | None = None
        self._sent: Answer | None = None
        self._tap: list[tuple[Tensor, Any]] | None = None

    @property
    def unit(self) -> Tensor:
        """What M's answers are multiplied by: unit_factor root mean squares of δ (1 before the first)."""
        return self.units.value.clone()  # the buffer itself goes on following

    @property
    def regression_loss(self) -> Tensor:
        """‖δ̂ - δ‖² / ‖δ‖² of the last gradient that arrived, a scalar: M = 0 gets 1, a perfect M 0.

        NaN before the first gradient, and after one that was zero or not finite.
        """
        if self._seen is None:
            return torch.full_like(self.unit, math.nan)
        size, unit, rms = self._seen
        return torch.where(rms.isfinite() & (rms > 0), size * unit / rms, math.nan).square()

    def send(self, h: Float[Tensor, "batch *features"], context: Any = None) -> Float[Tensor, ""]:
        """The sender's loss term ⟨scale·δ̂, h⟩, whose gradient at h is the synthetic gradient.

        Args:
            h: the message, attached to the sender's graph.
            context: what M may also see, for instance the labels.

        Returns:
            A scalar to add to the sender's loss, if it has one, and to differentiate. Its value means nothing.

        Raises:
            ValueError: if h is detached, or M answers in another shape.
        """
        h = checked(h)
        if not self.training:
            return h[:0].sum()  # zero, with a graph, whatever h holds
        attached(h)
        return dot(h, self.sent(h, context))

    def sent(self, h: Float[Tensor, "batch *features"], context: Any = None) -> Float[Tensor, "batch *features"]:
        """What ``send`` lets the sender learn from, for a loss term of your own: scale·δ̂, held fixed."""
        model = self.target or self.gradient_model
        if not torch.is_grad_enabled():  # nobody who learns could use an answer without a graph again
            return self._consumed(ask(model, h, context), h.dtype)
        self._sent = Answer(model, h.detach(), context)
        return self._consumed(self._sent.prediction, h.dtype)

    def receive(
        self, h: Float[Tensor, "batch *features"] | None = None, context: Any = None, *, source: Any = None
    ) -> Float[Tensor, "batch *features"]:
        """The message as a new leaf of the receiver's graph; the gradient that reaches it teaches M.

        Args:
            h: the message; its graph, if any, is left alone.
            context: what M may also see.
            source: with an input model, and instead of h: run on the synthetic input I(source).

        Returns:
            A tensor equal to h, or to I(source).

        Raises:
            ValueError: if not exactly one of h and source is given, or M answers in another shape.
        """
        if (h is None) == (source is None):
            raise ValueError("receive() wants exactly one of h (the message) and source (for the input model)")
        if h is None:
            h = self.synthetic_input(source)
        return self.received(h, context)[0] if self.training else h

    def received(self, h: Float[Tensor, "batch *features"], context: Any = None) -> tuple[Tensor, Tensor]:
        """``receive`` in training, and what M expects to come: the message, and M(h, c) in M's units."""
        message = checked(h).detach()
        answer, self._sent = self._sent, None
        if answer is not None and answer.fits(self.gradient_model, message, context):
            prediction = answer.prediction
        else:
            prediction = ask(self.gradient_model, message, context)
        received = Edge.apply(message.requires_grad_(), prediction, self, None, None)
        return received, prediction.detach()  # pyright: ignore[reportReturnType]

    def forward(self, h: Float[Tensor, "batch *features"], context: Any = None) -> Float[Tensor, "batch *features"]:
        """Both ends at once: the identity, whose gradient is λδ + (1-λ)·scale·δ̂, and which teaches M on δ.

        Args:
            h: the message.
            context: what M may also see.

        Returns:
            A tensor equal to h.

        References:
            Jaderberg et al. 2017, supplement A, BP(λ): g_k = λ g_{k+1} ∂h_{k+1}/∂h_k + (1-λ) M(h_k).
        """
        if self._tap is not None:
            h = h.view_as(h)  # its gradient is what comes back over this edge, not what h gets from elsewhere
            self._tap.append((h, context))
            return h
        if not self.training:
            return h
        message = checked(h).detach()
        prediction = ask(self.gradient_model, message, context)
        consumed = ask(self.target, message, context) if self.target and self.lam < 1 else prediction.detach()
        return Edge.apply(h, prediction, self, self.lam, consumed)  # pyright: ignore[reportReturnType]

    def fit(
        self,
        h: Float[Tensor, "batch *features"],
        delta: Float[Tensor, "batch *features"] | None = None,
        context: Any = None,
        *,
        source: Any = None,
    ) -> Float[Tensor, ""]:
        """The models' own loss, where the truth comes late or over another way than autograd.

        Args:
            h: the message.
            delta: the gradient that it received, for M: adds ‖M(h, c) - δ/unit‖², averaged over the batch.
            context: what M may also see.
            source: what the input model sees: adds ‖I(source) - h‖², averaged over the batch.

        Returns:
            A scalar; differentiate it, then step the models' optimizer.

        Raises:
            ValueError: if neither delta nor source is given, or shapes differ.
        """
        if delta is None and source is None:
            raise ValueError("fit() wants delta (to teach the gradient model) or source (to teach the input model)")
        message = checked(h).detach()
        loss = message.new_zeros(())
        if delta is not None:
            if delta.shape != h.shape:
                raise ValueError(f"the gradient has shape {tuple(delta.shape)}, its message {tuple(h.shape)}")
            error = self._error(ask(self.gradient_model, message, context), delta)
            loss = loss + error.square().sum() / max(len(message), 1)
        if source is not None:
            synthetic = self._synthesize(source)
            if synthetic.shape != h.shape:
                raise ValueError(
                    f"the input model answered in shape {tuple(synthetic.shape)}, its message has {tuple(h.shape)}"
                )
            error = synthetic - message
            loss = loss + error.square().sum() / max(len(message), 1)
        return loss

    @torch.no_grad()
    def synthetic_gradient(
        self, h: Float[Tensor, "batch *features"], context: Any = None
    ) -> Float[Tensor, "batch *features"]:
        """δ̂ = unit · M(h, c): the prediction of δ, in δ's own units and without ``scale``; 0 before the first δ."""
        return (ask(self.gradient_model, checked(h), context) * self.units.known).to(h.dtype)

    @torch.no_grad()
    def synthetic_input(self, source: Any) -> Tensor:
        """ĥ = I(source): the prediction of the message."""
        return self._synthesize(source)

    def _synthesize(self, source: Any) -> Tensor:
        if self.input_model is None:
            raise ValueError("this interface has no input model; give one: Interface(M, input_model=I)")
        return self.input_model(source)

    def _consumed(self, prediction: Tensor, dtype: torch.dtype) -> Tensor:
        """What a sender learns from: scale·δ̂, in the message's dtype."""
        unit = self.units.known.to(torch.promote_types(prediction.dtype, torch.float32))
        return (prediction.detach() * (unit * self.scale)).to(dtype)

    def _error(self, prediction: Tensor, delta: Tensor) -> Tensor:
        """M - δ/unit, after the unit has followed δ; zero where δ has nothing to teach."""
        if delta.numel() == 0:
            return prediction * 0.0
        with torch.no_grad():
            delta = delta.to(torch.promote_types(prediction.dtype, torch.float32))
            rms = root_mean_square(delta)
            finite = rms.isfinite()
            self.units.follow(rms)
            if self.target is not None:
                self.target.follow(self.gradient_model)
        error = torch.addcdiv(prediction.to(delta.dtype), delta, self.units.value, value=-1)
        # A GradScaler overflows on purpose while it looks for its scale: such a gradient must not reach M.
        if not (delta.is_cpu and finite):  # another device is not waited for just to ask it
            error = error.masked_fill(~finite, 0.0)
            self.skipped += ~finite
        size = root_mean_square(error.detach())
        # Assigned, not in place: the graph break it makes keeps torch.compile from freezing the unit (test_compat).
        self._seen = (size, self.unit, rms)
        return error

    def tap(self) -> list[tuple[Tensor, Any]]:
        """From now until ``untap`` the fused call lets everything through, and lists (h, context) here."""
        self._tap = []
        return self._tap

    def untap(self) -> None:
        """End a ``tap``."""
        self._tap = None

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles leave out what belongs to the step under way."""
        return {**self.__dict__, "_sent": None, "_seen": None, "_tap": None}

    def extra_repr(self) -> str:
        """The settings, for ``print``."""
        return f"lam={self.lam}, scale={self.scale}, unit={self.units.fixed or 'followed'}"
