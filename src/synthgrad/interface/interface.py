"""The interface on an edge A → B of a network: what A learns from while B has not answered yet."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from synthgrad.interface import compiled
from synthgrad.interface.autograd import Edge
from synthgrad.interface.message import (
    Answer,
    Brought,
    asked,
    attached,
    checked,
    dot,
    guarded,
    origins_of,
    plain,
    still,
    usable,
)
from synthgrad.interface.numbers import finite, waits_for, wide
from synthgrad.interface.regression import Arrival, Ledger, regression_error
from synthgrad.interface.target_model import Target
from synthgrad.interface.units import LossUnit, Unit

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
    backward pass that brings δ; an optimizer of your own moves them. If δ comes in several backward passes over
    one graph, they add up. A pass that does not run through M (``autograd.grad(loss, x)``) is a look, and teaches
    nothing. ``eval()`` and ``no_grad()`` make all of it the identity.

    What is not finite teaches nothing: M gets no gradient at all from it, so that no optimizer moves M either, and
    a sender gets zero for it. Both are counted.

    Args:
        gradient_model: M, anything callable as ``M(h, context)`` that answers in the shape of h.
        input_model: I, anything callable as ``I(source)``; needed only to run without a message.
        lam: λ of BP(λ), used by the fused call: 1 is backprop, bit for bit; 0 is DNI.
        scale: factor on δ̂ where the sender consumes it. It never touches M's target.
        target_every: if above 0, senders use a frozen copy of M, refreshed every ``target_every`` gradients.
        unit: None follows the gradient; a number fixes the unit (1.0: raw gradients). A critic brings its own.
        unit_factor: the unit in root mean squares of the gradient. At 32 M's targets are of size 1/32: what
            Adam at a usual rate can move M by in a few steps, since M must keep up with the parts (docs/log.md).
        unit_decay: how much of the mean square is kept per gradient that arrives.

    Attributes:
        skipped: how many gradients taught M nothing, since they, their message or M's answer were not finite.
        withheld: how many messages' senders got zero, since the message or M's answer was not finite.
        clamped: how many messages' δ̂ was beyond half precision's range, and cut off there.

    Example:
        >>> interface = Interface(Linear(256, context=10))
        >>> (interface.send(h, y)).backward()                      # A is done
        >>> criterion(B(interface.receive(h, y)), y).backward()    # B, whenever it likes

    References:
        Jaderberg et al. 2017 (arXiv 1608.05343), Fig. 1 and section 2.1; supplement A for λ.
    """

    skipped: Tensor
    withheld: Tensor
    clamped: Tensor
    units: Unit | LossUnit

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
        if not 0 <= scale < math.inf:
            raise ValueError(
                f"scale is {scale}; it weighs the synthetic gradient and must be a number of at least 0"
            )
        if not callable(gradient_model):
            raise TypeError(
                f"a gradient model is callable as M(h, context); {type(gradient_model).__name__} is not"
            )
        self.gradient_model = gradient_model
        self.input_model = input_model
        self.lam, self.scale = lam, scale
        self.target = Target(gradient_model, target_every) if target_every else None
        brought = _brought(gradient_model)
        if brought is not None and unit is not None:
            raise ValueError(f"unit is {unit}, but a critic brings its own; leave out unit")
        self.units = brought or Unit(unit, unit_factor, unit_decay)
        for name in ("skipped", "withheld", "clamped"):
            self.register_buffer(name, torch.tensor(0))
        self._seen: tuple[float, float, float] | None = None
        self._open: tuple[weakref.ref[Tensor], int, Any, Ledger] | None = None
        self._tap: list[tuple[Tensor, Any]] | None = None
        self._number = compiled.register(self)

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
            return torch.tensor(math.nan)
        size, unit, rms = self._seen
        return torch.tensor(size * unit / rms if rms > 0 else math.nan).square()

    def predict(self, h: Float[Tensor, "batch *features"], context: Any = None) -> Answer:
        """M's answer, for ``send`` and ``receive`` of one message in one process, which else ask M once each.

        Args:
            h: the message.
            context: what M may also see.

        Returns:
            The answer with M's graph: hand it to both as ``answer=``. The receiver asks M again if the message, the
            context or M's parameters have been written to in between. Other changes of M (through ``.data``, of a
            mode or an attribute) are not seen: make none between the two.

        Raises:
            ValueError: if M answers in another shape.
        """
        return self._answer(self.gradient_model, checked(h).detach(), context)

    def send(
        self, h: Float[Tensor, "batch *features"], context: Any = None, *, answer: Answer | None = None
    ) -> Float[Tensor, ""]:
        """The sender's loss term ⟨scale·δ̂, h⟩, whose gradient at h is the synthetic gradient.

        Args:
            h: the message, attached to the sender's graph.
            context: what M may also see, for instance the labels.
            answer: of ``predict``, to ask M only once.

        Returns:
            A scalar to add to the sender's loss, if it has one, and to differentiate. Its value means nothing.

        Raises:
            ValueError: if h is detached, or M answers in another shape.
        """
        h = checked(h)
        if not self.training:
            return h[:0].sum()  # zero, with a graph, whatever h holds
        attached(plain(h))
        return dot(h, self.sent(h, context, answer))

    def sent(
        self, h: Float[Tensor, "batch *features"], context: Any = None, answer: Answer | None = None
    ) -> Float[Tensor, "batch *features"]:
        """What ``send`` lets the sender learn from, for a loss term of your own: scale·δ̂, held fixed."""
        return self._sent(h, context, answer)[0]

    def _sent(self, h: Tensor, context: Any, answer: Answer | None = None) -> tuple[Tensor, float | Tensor]:
        """The same, and the unit of M's answer."""
        if answer is None or self.target is not None or not answer.fresh:
            model = self.target or self.gradient_model
            with torch.no_grad(), still(model):  # batch norm counts a message once, where it is received
                answer = self._answer(model, h.detach(), context)
        return self._consumed(answer.prediction, answer.unit, answer.good, h.dtype), answer.unit

    def receive(
        self,
        h: Float[Tensor, "batch *features"] | None = None,
        context: Any = None,
        *,
        source: Any = None,
        answer: Answer | None = None,
    ) -> Float[Tensor, "batch *features"]:
        """The message as a new leaf of the receiver's graph; the gradient that reaches it teaches M.

        Args:
            h: the message; its graph, if any, is left alone. Several receivers of one message may each receive it,
                before the first of them is differentiated: their gradients add up.
            context: what M may also see.
            source: with an input model, and instead of h: run on the synthetic input I(source).
            answer: of ``predict``, to ask M only once.

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
        return self.received(h, context, answer)[0] if torch.is_grad_enabled() else h.detach()

    def received(
        self, h: Float[Tensor, "batch *features"], context: Any = None, answer: Answer | None = None
    ) -> tuple[Tensor, Tensor]:
        """``receive`` in training, and what M expects to come: the message, and M(h, c) in M's units."""
        message = usable(plain(checked(h)).detach())
        if answer is None or not answer.fresh or answer.prediction.shape != h.shape:
            answer = self._answer(self.gradient_model, message, context)
        return self._joined(message, (h, context), answer, None, None), answer.prediction.detach()

    def forward(
        self, h: Float[Tensor, "batch *features"], context: Any = None, omitted: Tensor | None = None
    ) -> Float[Tensor, "batch *features"]:
        """Both ends at once: the identity, whose gradient is λδ + (1-λ)·scale·δ̂, and which teaches M on δ.

        Args:
            h: the message.
            context: what M may also see.
            omitted: for which examples neither δ̂ is passed on nor M learns, shape (batch,).

        Returns:
            A tensor equal to h.

        References:
            Jaderberg et al. 2017, supplement A, BP(λ): g_k = λ g_{k+1} ∂h_{k+1}/∂h_k + (1-λ) M(h_k).
        """
        if self._tap is not None:
            h = h.view_as(h)  # its gradient is what comes back over this edge, not what h gets from elsewhere
            self._tap.append((h, context))
            return h
        if not self.training or not torch.is_grad_enabled():
            return h
        message = plain(checked(h)).detach()
        answer = consumed = self._answer(self.gradient_model, message, context)
        if self.target is not None and self.lam < 1:
            with torch.no_grad():
                consumed = self._answer(self.target, message, context)
        return self._joined(h, (h, context), answer, self.lam, consumed, omitted)

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
        h, loss = checked(h), h.new_zeros(())
        losses = []
        if delta is not None:
            if delta.shape != h.shape:
                raise ValueError(f"the gradient has shape {tuple(delta.shape)}, its message {tuple(h.shape)}")
            answer = self._answer(self.gradient_model, h.detach(), context)
            arrival = Arrival(self, answer, Ledger())
            losses.append(regression_error(answer.prediction, delta.detach(), arrival, follow=self.training))
        if source is not None:
            synthetic = self._synthesize(source)
            if synthetic.shape != h.shape:
                raise ValueError(
                    f"the input model answered in shape {tuple(synthetic.shape)}, its message has {tuple(h.shape)}"
                )
            error = synthetic - h.detach()
            usable = bool(finite(error.detach()))
            losses.append(error if usable else None)
            self.skipped += not usable
        for error in losses:
            if error is not None:
                loss = loss + error.square().sum() / max(len(h), 1)
        return loss if loss.requires_grad or not torch.is_grad_enabled() else loss.requires_grad_()

    @torch.no_grad()
    def synthetic_gradient(
        self, h: Float[Tensor, "batch *features"], context: Any = None
    ) -> Float[Tensor, "batch *features"]:
        """δ̂ = unit · M(h, c): the prediction of δ, in δ's own units and without ``scale``; 0 before the first δ.

        A look: it moves nothing, M's batch norm and the random state included.
        """
        with still(self.gradient_model, random=True):
            answer = self._answer(self.gradient_model, checked(h).detach(), context)
        return (wide(answer.prediction) * answer.unit).to(h.dtype)

    @torch.no_grad()
    def synthetic_input(self, source: Any) -> Tensor:
        """ĥ = I(source): the prediction of the message."""
        return self._synthesize(source)

    def _synthesize(self, source: Any) -> Tensor:
        if self.input_model is None:
            raise ValueError("this interface has no input model; give one: Interface(M, input_model=I)")
        return self.input_model(source)

    def _answer(self, model: Any, h: Tensor, context: Any) -> Answer:
        """M's answer to a message, with the unit that belongs to it."""
        message, good = guarded(h, context)
        origins = origins_of(model, h, context)
        if message is None:  # nothing is asked, and nothing taught
            return Answer(torch.zeros_like(h), 0.0, (), False, origins)
        if compiled.opaque(self):
            prediction, unit = compiled.answer(self, model, message, context)
            return Answer(prediction, unit, (Brought(unit),), good)
        prediction, brought = asked(model, message, context)
        unit = brought[0].unit if brought else self.units.of(len(h))
        return Answer(prediction, unit, brought, good, origins)

    def _joined(
        self,
        h: Tensor,
        given: tuple[Tensor, Any],
        answer: Answer,
        lam: float | None,
        consumed: Answer | None,
        omitted: Tensor | None = None,
    ) -> Tensor:
        """The message as the receiver sees it, joined to M; ``given`` are tensor and context as they came."""
        if torch.compiler.is_compiling():
            return compiled.joined(self, h, answer, lam, consumed)
        prediction = answer.prediction
        if not prediction.requires_grad:  # a frozen M's unit follows all the same, but not a mere look
            prediction = prediction.detach().requires_grad_()
        if lam is None:
            h.requires_grad_()  # a leaf, as the message that it is
        arrival = Arrival(self, answer, self._ledger(*given))
        arrival.omitted = omitted
        return Edge.apply(h, prediction, arrival, lam, consumed)  # pyright: ignore[reportReturnType]

    def _ledger(self, h: Tensor, context: Any) -> Ledger:
        """Of this message: shared by all who receive it, with its context, before its first gradient is there."""
        version, last = -1 if h.is_inference() else h._version, self._open
        if last is not None:
            same, written, told, ledger = last
            if same() is h and written == version and told is context and not ledger.arrivals:
                ledger.receivers += 1
                return ledger
        self._open = weakref.ref(h), version, context, Ledger()
        return self._open[3]

    def _consumed(
        self, prediction: Tensor, unit: float | Tensor, good: bool | Tensor, dtype: torch.dtype
    ) -> Tensor:
        """What a sender learns from an answer: scale·δ̂, in the message's dtype; zero if it is not finite."""
        found = wide(prediction.detach()) * (unit * self.scale)
        if not waits_for(found):
            good = found.isfinite().all() & good
            found = torch.where(good, found, 0.0)
            self.withheld += ~good
        elif not good or not finite(found):
            found = torch.zeros_like(found)
            self.withheld += 1
        if dtype is torch.float16:
            most = torch.finfo(dtype).max
            self.clamped += (found.abs() > most).any()
            found = found.clamp(-most, most)
        return found.to(dtype)

    def tap(self) -> list[tuple[Tensor, Any]]:
        """From now until ``untap`` the fused call lets everything through, and lists (h, context) here."""
        self._tap = []
        return self._tap

    def untap(self) -> None:
        """End a ``tap``."""
        self._tap = None

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles leave out what belongs to the step under way."""
        return {**self.__dict__, "_open": None, "_seen": None, "_tap": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy is an interface of its own."""
        super().__setstate__(state)
        self._number = compiled.register(self)

    def extra_repr(self) -> str:
        """The settings, for ``print``."""
        return f"lam={self.lam}, scale={self.scale}, unit={self.units.fixed or 'followed'}"


def _brought(model: Any) -> LossUnit | None:
    """The unit that a model brings, also from inside a wrapper."""
    modules = model.modules() if isinstance(model, nn.Module) else ()
    found = (getattr(module, "units", None) for module in modules)
    return next((units for units in found if isinstance(units, LossUnit)), None)
