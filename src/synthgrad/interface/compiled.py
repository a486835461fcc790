"""Interfaces inside a graph that torch.compile traces: one opaque operator teaches M, another runs a critic.

A compiled backward pass can neither read a number out of a tensor nor keep a Python object up to date, and it can't
differentiate twice, as a critic must. Every backend calls the operators of torch.library as they are.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

import torch
from torch import Tensor, nn

from synthgrad.interface.message import AttachedUnit, CachedPrediction, predict_with_units
from synthgrad.interface.regression import (
    BY_NUMBER,
    Arrival,
    Ledger,
    Regression,
    gradient_for_sender,
    regression_gradient,
)
from synthgrad.interface.units import LossUnit


def uncompiled(function: Any) -> Any:
    """End a compiled graph before this function, and do not compile what it calls.

    That is torch.compiler.disable; importing that takes seconds, so only those who compile anyway pay for it.
    """
    disabled: list[Any] = []

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if "torch._dynamo" not in sys.modules:
            return function(*args, **kwargs)
        if not disabled:
            disabled.append(torch.compiler.disable(function))
        return disabled[0](*args, **kwargs)

    wrapper._torchdynamo_disable = True  # pyright: ignore[reportAttributeAccessIssue]
    return wrapper


def needs_operator(regression: Regression) -> bool:
    """Whether an operator must run M: in a traced graph, if M is a critic."""
    return torch.compiler.is_compiling() and isinstance(regression.units, LossUnit)


def join(
    regression: Regression,
    h: Tensor,
    answer: CachedPrediction,
    lam: float | None,
    consumed: CachedPrediction | None,
) -> Tensor:
    """``TeachOnBackward`` for a traced graph; it assumes that each message's gradient arrives in one piece."""
    passed = None
    if consumed is not None and lam != 1:
        passed = gradient_for_sender(regression, consumed.prediction, consumed.unit, consumed.good, h.dtype)
    unit = torch.as_tensor(answer.unit, device=h.device)
    good = torch.as_tensor(answer.good, device=h.device)
    attached = bool(answer.attached)
    return _TracedTeachOnBackward.apply(h, answer.prediction, passed, unit, good, attached, regression.number, lam)


class _TracedTeachOnBackward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        h: Tensor,
        prediction: Tensor,
        passed: Tensor | None,
        unit: Tensor,
        good: Tensor,
        attached: bool,
        number: int,
        lam: float | None,
    ) -> Tensor:
        ctx.save_for_backward(prediction, passed, unit, good)
        ctx.attached, ctx.number, ctx.lam = attached, number, lam
        return h.view_as(h)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        prediction, passed, unit, good = ctx.saved_tensors
        gradient = torch.ops.synthgrad.teach(delta, prediction, unit, good, ctx.attached, ctx.number)
        if ctx.lam is None:
            down = None
        else:
            down = delta if passed is None else passed if ctx.lam == 0 else passed.lerp(delta, ctx.lam)
        return down, gradient, None, None, None, None, None, None


@torch.library.custom_op(
    "synthgrad::teach",
    mutates_args=(),
    schema="(Tensor delta, Tensor prediction, Tensor unit, Tensor good, bool attached, int number) -> Tensor",
)
def _teach(delta: Tensor, prediction: Tensor, unit: Tensor, good: Tensor, attached: bool, number: int) -> Tensor:
    """M's regression gradient; zeros if δ teaches nothing, since a traced graph has no None."""
    answer = CachedPrediction(prediction, unit, (AttachedUnit(unit),) if attached else (), good)
    found = regression_gradient(prediction, delta, Arrival(BY_NUMBER[number], answer, Ledger()))
    return torch.zeros_like(prediction) if found is None else found.clone()


@_teach.register_fake
def _(delta: Tensor, prediction: Tensor, unit: Tensor, good: Tensor, attached: bool, number: int) -> Tensor:
    return torch.empty_like(prediction)


def predict(regression: Regression, model: Any, h: Tensor, context: Any) -> tuple[Tensor, Tensor]:
    """M's prediction and its unit; the backward pass runs M again if its parameters' gradients are needed.

    Raises:
        TypeError: if the context is more than one tensor.
    """
    if context is not None and not isinstance(context, Tensor):
        raise TypeError(f"a compiled critic takes one tensor as context, not {type(context).__name__}")
    parameters = list(model.parameters()) if isinstance(model, nn.Module) else []
    copied = model is not regression.gradient_model
    return torch.ops.synthgrad.predict(h, context, parameters, regression.number, copied)


def _run(h: Tensor, context: Tensor | None, number: int, copied: bool) -> tuple[Tensor, Tensor]:
    regression = BY_NUMBER[number]
    prediction, attached = predict_with_units(
        regression.target if copied else regression.gradient_model, h, context
    )
    return prediction, torch.as_tensor(attached[0].unit, device=h.device, dtype=torch.float32)


@torch.library.custom_op(
    "synthgrad::predict",
    mutates_args=(),
    schema="(Tensor h, Tensor? context, Tensor[] parameters, int number, bool copied) -> (Tensor, Tensor)",
)
def _predict(
    h: Tensor, context: Tensor | None, parameters: list[Tensor], number: int, copied: bool
) -> tuple[Tensor, Tensor]:
    prediction, unit = _run(h.detach(), context, number, copied)
    return prediction.detach().clone(), unit.clone()


@_predict.register_fake
def _(h: Tensor, context: Any, parameters: Any, number: int, copied: bool) -> tuple[Tensor, Tensor]:
    dtype = next((p.dtype for p in parameters if p.is_floating_point()), h.dtype)
    return torch.empty_like(h, dtype=dtype), h.new_empty((), dtype=torch.float32)


@torch.library.custom_op(
    "synthgrad::gradients",
    mutates_args=(),
    schema="(Tensor gradient, Tensor h, Tensor? context, Tensor[] parameters, int number, bool copied) -> Tensor[]",
)
def _gradients(
    gradient: Tensor, h: Tensor, context: Tensor | None, parameters: list[Tensor], number: int, copied: bool
) -> list[Tensor]:
    found = [torch.zeros_like(p) for p in parameters]
    if copied or not gradient.any():  # a copy does not learn; where no gradient arrived, the anchor is not due
        return found
    own = list(BY_NUMBER[number].gradient_model.parameters())
    learning = [k for k, p in enumerate(own) if p.requires_grad]
    with torch.enable_grad():
        prediction, _ = _run(h.detach(), context, number, copied)
        grads = torch.autograd.grad(prediction, [own[k] for k in learning], gradient, allow_unused=True)
    for k, g in zip(learning, grads, strict=True):
        found[k] = found[k] if g is None else g.clone()
    return found


@_gradients.register_fake
def _(gradient: Any, h: Any, context: Any, parameters: Any, number: int, copied: bool) -> list[Tensor]:
    return [torch.empty_like(p) for p in parameters]


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    h, context, parameters, ctx.number, ctx.copied = inputs
    ctx.has_context, ctx.count = context is not None, len(parameters)
    ctx.save_for_backward(h, *([context] if context is not None else []), *parameters)


def _back(ctx: Any, gradient: Tensor, of_unit: Tensor) -> Any:
    h, *rest = ctx.saved_tensors
    context, parameters = (rest[0], rest[1:]) if ctx.has_context else (None, rest)
    found = torch.ops.synthgrad.gradients(gradient, h, context, parameters, ctx.number, ctx.copied)
    return None, None, found, None, None


_predict.register_autograd(_back, setup_context=_save)
