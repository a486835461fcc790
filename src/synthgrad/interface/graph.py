"""M in the graph, eager or traced: run it on a message, and join the message to it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from synthgrad.interface import compiled
from synthgrad.interface.autograd import TeachOnBackward
from synthgrad.interface.message import (
    AttachedUnit,
    CachedPrediction,
    predict_with_units,
    record_versions,
    replace_nonfinite,
    restore_buffers,
)
from synthgrad.interface.regression import Arrival, Regression, ledger_for


def predict(regression: Regression, model: Any, h: Tensor, context: Any) -> CachedPrediction:
    """Run M, or its target copy, on a message.

    Raises:
        ValueError: if M answers in another shape.
    """
    message, good = replace_nonfinite(h, context)
    versions = record_versions(model, h, context)
    if message is None:
        return CachedPrediction(torch.zeros_like(h), 0.0, (), False, versions)
    if compiled.needs_operator(regression):
        prediction, unit = compiled.predict(regression, model, message, context)
        return CachedPrediction(prediction, unit, (AttachedUnit(unit),), good)
    prediction, attached = predict_with_units(model, message, context)
    unit = attached[0].unit if attached else regression.units.for_batch(len(h))
    return CachedPrediction(prediction, unit, attached, good, versions)


def predict_for_sender(
    regression: Regression, h: Tensor, context: Any, answer: CachedPrediction | None = None
) -> CachedPrediction:
    """The prediction for a sender: the target copy's if there is one, else ``answer`` if it still matches."""
    if answer is not None and regression.target is None and answer.matches:
        return answer
    model = regression.target or regression.gradient_model
    with torch.no_grad(), restore_buffers(model):  # batch norm counts a message once, where it is received
        return predict(regression, model, h.detach(), context)


def join(
    regression: Regression,
    h: Tensor,
    received: tuple[Tensor, Any],
    answer: CachedPrediction,
    lam: float | None,
    consumed: CachedPrediction | None,
    omitted: Tensor | None = None,
) -> Tensor:
    """Join a message to M: the gradient that reaches the result teaches M.

    Args:
        regression: of M.
        h: the message.
        received: message and context as the user gave them, by which several receivers of one message are found.
        answer: M's prediction, with its graph.
        lam: λ of the mixture that is passed down; None passes nothing down.
        consumed: the prediction in that mixture.
        omitted: rows for which nothing is passed down and M does not learn, shape (batch,).
    """
    if torch.compiler.is_compiling():
        return compiled.join(regression, h, answer, lam, consumed)
    prediction = answer.prediction
    if not prediction.requires_grad:  # a frozen M does not learn, but its unit does; autograd must still visit it
        prediction = prediction.detach().requires_grad_()
    if lam is None:
        h.requires_grad_()  # a leaf, as the message that it is
    arrival = Arrival(regression, answer, ledger_for(regression, *received))
    arrival.omitted = omitted
    return TeachOnBackward.apply(h, prediction, arrival, lam, consumed)  # pyright: ignore[reportReturnType]
