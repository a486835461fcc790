"""The interface on an edge A → B of a network: A learns from a predicted gradient before the true one is there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from synthgrad.interface.fit import InputModel, fit_loss, synthesize
from synthgrad.interface.graph import join, predict, predict_for_sender
from synthgrad.interface.message import (
    CachedPrediction,
    GradientModel,
    check_attached,
    check_message,
    check_not_transformed,
    copy_if_inference,
    dot,
    restore_buffers,
)
from synthgrad.interface.numbers import wide
from synthgrad.interface.regression import Regression, gradient_for_sender


class Interface(Regression):
    r"""A decoupled neural interface: M(h, c) predicts the gradient δ that the message h will receive.

    Three verbs place it (Fig. 1 of the paper *is* this API)::

        A:  loss_A = interface.send(h, context)      ⟨δ̂, h⟩ with δ̂ = M(h, c) held fixed: ∂loss_A/∂h = δ̂
        B:  h      = interface.receive(h, context)   h as a new leaf; when δ reaches it, M is regressed on δ
            h      = interface(h, context)           both inside one graph: passes λδ + (1-λ)δ̂ on

    M predicts in units of the gradient's own size, which the interface measures (``unit``), so nothing changes when
    the loss is a mean, a sum or a multiple. δ̂ carries whatever factor the arriving gradients carry: a term from
    ``send`` must never be scaled again (by a GradScaler, say).

    The backward pass that brings δ also gives M's parameters their gradients, of ‖M(h, c) - δ/unit‖² averaged over
    the batch; your own optimizer moves them. Several passes over one graph add up. A pass that does not run through
    M (``autograd.grad(loss, x)``) teaches nothing. In ``eval()`` and ``no_grad()`` every verb is the identity.

    Values that are not finite teach nothing: M gets no gradient from them, so that no optimizer moves M either,
    and a sender gets zero. Both are counted (``skipped``, ``withheld``).

    Args:
        gradient_model: M, anything callable as ``M(h, context)`` that answers in the shape of h.
        input_model: I, anything callable as ``I(source)``; needed only to run without a message.
        lam: λ of BP(λ), used by the fused call: 1 is backprop, bit for bit; 0 is DNI.
        scale: factor on δ̂ where the sender consumes it. It never touches M's target.
        target_every: if above 0, senders use a frozen copy of M, refreshed every ``target_every`` gradients.
        unit: None measures the gradient; a number fixes the unit (1.0: raw gradients). A critic brings its own.
        unit_factor: the unit in root mean squares of the gradient; at 32, M's targets are of size 1/32 (``Unit``).
        unit_decay: the share of the mean square that each arriving gradient keeps.

    Example:
        >>> interface = Interface(Linear(256, context=10))
        >>> (interface.send(h, y)).backward()                      # A is done
        >>> criterion(B(interface.receive(h, y)), y).backward()    # B, whenever it likes

    References:
        Jaderberg et al. 2017 (arXiv 1608.05343), Fig. 1 and section 2.1; supplement A for λ.
    """

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
        if not 0 <= lam <= 1:
            raise ValueError(f"lam is {lam}; it mixes two gradients and must be from 0 (DNI) to 1 (backprop)")
        super().__init__(gradient_model, scale, target_every, unit, unit_factor, unit_decay)
        self.input_model, self.lam = input_model, lam
        self._recorded: list[tuple[Tensor, Any]] | None = None

    def predict(self, h: Float[Tensor, "batch *features"], context: Any = None) -> CachedPrediction:
        """Run M once for ``send`` and ``receive`` of one message in one process; otherwise each runs it.

        Args:
            h: the message.
            context: what M may also see.

        Returns:
            The prediction with M's graph: pass it to both as ``answer=``. The receiver runs M again if the
            message, the context or M's parameters were written to meanwhile, but misses ``.data`` and modes.

        Raises:
            ValueError: if M answers in another shape.
        """
        return predict(self, self.gradient_model, check_message(h).detach(), context)

    def send(
        self, h: Float[Tensor, "batch *features"], context: Any = None, *, answer: CachedPrediction | None = None
    ) -> Float[Tensor, ""]:
        """The sender's loss term ⟨scale·δ̂, h⟩, whose gradient at h is the synthetic gradient.

        Args:
            h: the message, attached to the sender's graph.
            context: what M may also see, for instance the labels.
            answer: the result of ``predict``, to run M only once.

        Returns:
            A scalar to add to the sender's loss, if it has one, and to differentiate. Its value means nothing.

        Raises:
            ValueError: if h is detached, or M answers in another shape.
        """
        h = check_message(h)
        if not self.training:
            return h[:0].sum()  # zero, with a graph, whatever h holds
        check_attached(check_not_transformed(h))
        return dot(h, self.sender_gradient(h, context, answer))

    def sender_gradient(
        self, h: Float[Tensor, "batch *features"], context: Any = None, answer: CachedPrediction | None = None
    ) -> Float[Tensor, "batch *features"]:
        """The gradient that ``send`` gives the sender, for a loss term of your own: scale·δ̂, held fixed."""
        found = predict_for_sender(self, h, context, answer)
        return gradient_for_sender(self, found.prediction, found.unit, found.good, h.dtype)

    def receive(
        self,
        h: Float[Tensor, "batch *features"] | None = None,
        context: Any = None,
        *,
        source: Any = None,
        answer: CachedPrediction | None = None,
    ) -> Float[Tensor, "batch *features"]:
        """The message as a new leaf of the receiver's graph; the gradient that reaches it teaches M.

        Args:
            h: the message; its graph, if any, is left alone. Several receivers of one message may each receive it,
                before the first of them is differentiated: their gradients add up.
            context: what M may also see.
            source: with an input model, and instead of h: run on the synthetic input I(source).
            answer: the result of ``predict``, to run M only once.

        Returns:
            A tensor equal to h, or to I(source).

        Raises:
            ValueError: if not exactly one of h and source is given, or M answers in another shape.
        """
        if (h is None) == (source is None):
            raise ValueError("receive() wants exactly one of h (the message) and source (for the input model)")
        if h is None:
            h = self.synthetic_input(source)
        if not self.training:
            return h
        return self.receive_with_prediction(h, context, answer)[0] if torch.is_grad_enabled() else h.detach()

    def receive_with_prediction(
        self, h: Float[Tensor, "batch *features"], context: Any = None, answer: CachedPrediction | None = None
    ) -> tuple[Tensor, Tensor]:
        """``receive`` in training; returns the message, and M(h, c) in M's units."""
        message = copy_if_inference(check_not_transformed(check_message(h)).detach())
        if answer is None or not answer.matches or answer.prediction.shape != h.shape:
            answer = predict(self, self.gradient_model, message, context)
        return join(self, message, (h, context), answer, None, None), answer.prediction.detach()

    def forward(
        self, h: Float[Tensor, "batch *features"], context: Any = None, omitted: Tensor | None = None
    ) -> Float[Tensor, "batch *features"]:
        """Both ends at once: the identity, whose gradient is λδ + (1-λ)·scale·δ̂, and which teaches M on δ.

        Args:
            h: the message.
            context: what M may also see.
            omitted: examples for which no δ̂ is passed on and M does not learn, shape (batch,).

        References:
            Jaderberg et al. 2017, supplement A, BP(λ): g_k = λ g_{k+1} ∂h_{k+1}/∂h_k + (1-λ) M(h_k).
        """
        if self._recorded is not None:
            h = h.view_as(h)  # the view's gradient is that of this edge alone, without h's other uses
            self._recorded.append((h, context))
            return h
        if not self.training or not torch.is_grad_enabled():
            return h
        message = check_not_transformed(check_message(h)).detach()
        answer = consumed = predict(self, self.gradient_model, message, context)
        if self.target is not None and self.lam < 1:
            with torch.no_grad():
                consumed = predict(self, self.target, message, context)
        return join(self, h, (h, context), answer, self.lam, consumed, omitted)

    def fit(
        self,
        h: Float[Tensor, "batch *features"],
        delta: Float[Tensor, "batch *features"] | None = None,
        context: Any = None,
        *,
        source: Any = None,
    ) -> Float[Tensor, ""]:
        """The models' own loss, a scalar, for gradients that arrive late or outside autograd.

        Args:
            h: the message.
            delta: the gradient that it received, for M: adds ‖M(h, c) - δ/unit‖², averaged over the batch.
            context: what M may also see.
            source: what the input model sees: adds ‖I(source) - h‖², averaged over the batch.

        Raises:
            ValueError: if neither delta nor source is given, or shapes differ.
        """
        return fit_loss(self, self.input_model, check_message(h), delta, context, source)

    @torch.no_grad()
    def synthetic_gradient(
        self, h: Float[Tensor, "batch *features"], context: Any = None
    ) -> Float[Tensor, "batch *features"]:
        """δ̂ = unit · M(h, c): the prediction of δ, in δ's own units and without ``scale``; 0 before the first δ.

        Changes nothing, neither M's batch norm nor the random state.
        """
        with restore_buffers(self.gradient_model, random=True):
            answer = predict(self, self.gradient_model, check_message(h).detach(), context)
        return (wide(answer.prediction) * answer.unit).to(h.dtype)

    @torch.no_grad()
    def synthetic_input(self, source: Any) -> Tensor:
        """ĥ = I(source): the prediction of the message."""
        return synthesize(self.input_model, source)

    @contextmanager
    def recording(self) -> Iterator[list[tuple[Tensor, Any]]]:
        """Within the block the fused call is the identity and its gradient, and lists each (h, context)."""
        self._recorded = []
        try:
            yield self._recorded
        finally:
            self._recorded = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out of copies and pickles what is being recorded."""
        return {**super().__getstate__(), "_recorded": None}

    def extra_repr(self) -> str:
        """The settings, for ``print``."""
        return f"lam={self.lam}, scale={self.scale}, unit={self.units.fixed or 'followed'}"
