"""The losses of the gradient model and the input model, for truths that do not arrive through autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from synthgrad.interface.graph import predict
from synthgrad.interface.numbers import finite
from synthgrad.interface.regression import Arrival, Ledger, Regression, regression_error

InputModel = Callable[[Any], Tensor]
"""``I(source)``: predicts the message itself, for a receiver that does not wait for it."""


def fit_loss(regression: Regression, input_model: InputModel | None, h: Tensor, *given: Any) -> Tensor:
    """The loss of ``Interface.fit``; ``given`` are its delta, context and source."""
    delta, context, source = given
    if delta is None and source is None:
        raise ValueError("fit() wants delta (to teach the gradient model) or source (to teach the input model)")
    loss = h.new_zeros(())
    errors = []
    if delta is not None:
        errors.append(_gradient_error(regression, h, delta, context))
    if source is not None:
        errors.append(_input_error(regression, input_model, h, source))
    for error in errors:
        if error is not None:
            loss = loss + error.square().sum() / max(len(h), 1)
    return loss if loss.requires_grad or not torch.is_grad_enabled() else loss.requires_grad_()


def synthesize(input_model: InputModel | None, source: Any) -> Tensor:
    """I(source).

    Raises:
        ValueError: if there is no input model.
    """
    if input_model is None:
        raise ValueError("this interface has no input model; give one: Interface(M, input_model=I)")
    return input_model(source)


def _gradient_error(regression: Regression, h: Tensor, delta: Tensor, context: Any) -> Tensor | None:
    if delta.shape != h.shape:
        raise ValueError(f"the gradient has shape {tuple(delta.shape)}, its message {tuple(h.shape)}")
    answer = predict(regression, regression.gradient_model, h.detach(), context)
    arrival = Arrival(regression, answer, Ledger())
    return regression_error(answer.prediction, delta.detach(), arrival, update=regression.training)


def _input_error(regression: Regression, input_model: InputModel | None, h: Tensor, source: Any) -> Tensor | None:
    synthetic = synthesize(input_model, source)
    if synthetic.shape != h.shape:
        raise ValueError(
            f"the input model answered in shape {tuple(synthetic.shape)}, its message has {tuple(h.shape)}"
        )
    error = synthetic - h.detach()
    usable = bool(finite(error.detach()))
    regression.skipped += not usable
    return error if usable else None
