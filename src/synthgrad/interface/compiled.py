"""Interfaces inside a graph that torch.compile traces: M's teaching, and a critic, are one opaque operator each.

A compiled backward pass can neither read a number out of a tensor nor keep a Python object up to date, and it can't
differentiate twice, as a critic must. Operators of torch.library are called as they are, by every backend.
"""

from __future__ import annotations

import functools
import itertools
import sys
import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from synthgrad.interface.message import Answer, Brought, asked
from synthgrad.interface.regression import Arrival, Ledger, taught
from synthgrad.interface.units import LossUnit

if TYPE_CHECKING:
    from synthgrad.interface.interface import Interface

_INTERFACES: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
_NUMBERS = itertools.count()


def register(interface: Interface) -> int:
    """A number by which an operator finds the interface."""
    number = next(_NUMBERS)
    _INTERFACES[number] = interface
    return number


def untraced(function: Any) -> Any:
    """End a compiled graph before this function, and leave alone what it calls.

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


def opaque(interface: Interface) -> bool:
    """Whether M must be asked through an operator."""
    return torch.compiler.is_compiling() and isinstance(interface.units, LossUnit)


def joined(interface: Interface, h: Tensor, answer: Answer, lam: float | None, consumed: Answer | None) -> Tensor:
    """What ``Edge`` does, for a traced graph; each message's gradient is taken to come in one piece."""
    passed = None
    if consumed is not None and lam != 1:
        passed = interface._consumed(consumed.prediction, consumed.unit, consumed.good, h.dtype)
    unit = torch.as_tensor(answer.unit, device=h.device)
    good = torch.as_tensor(answer.good, device=h.device)
    brought = bool(answer.brought)
    return _TracedEdge.apply(h, answer.prediction, passed, unit, good, brought, interface._number, lam)


class _TracedEdge(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        h: Tensor,
        prediction: Tensor,
        passed: Tensor | None,
        unit: Tensor,
        good: Tensor,
        brought: bool,
        number: int,
        lam: float | None,
    ) -> Tensor:
        ctx.save_for_backward(prediction, passed, unit, good)
        ctx.brought, ctx.number, ctx.lam = brought, number, lam
        return h.view_as(h)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        prediction, passed, unit, good = ctx.saved_tensors
        regression = torch.ops.synthgrad.teach(delta, prediction, unit, good, ctx.brought, ctx.number)
        if ctx.lam is None:
            down = None
        else:
            down = delta if passed is None else passed if ctx.lam == 0 else passed.lerp(delta, ctx.lam)
        return down, regression, None, None, None, None, None, None


@torch.library.custom_op(
    "synthgrad::teach",
    mutates_args=(),
    schema="(Tensor delta, Tensor prediction, Tensor unit, Tensor good, bool brought, int number) -> Tensor",
)
def _teach(delta: Tensor, prediction: Tensor, unit: Tensor, good: Tensor, brought: bool, number: int) -> Tensor:
    """M's regression gradient; zeros where there is nothing to teach, for a traced graph can't hold nothing."""
    answer = Answer(prediction, unit, (Brought(unit),) if brought else (), good)
    found = taught(prediction, delta, Arrival(_INTERFACES[number], answer, Ledger()))
    return torch.zeros_like(prediction) if found is None else found.clone()


@_teach.register_fake
def _(delta: Tensor, prediction: Tensor, unit: Tensor, good: Tensor, brought: bool, number: int) -> Tensor:
    return torch.empty_like(prediction)


def answer(interface: Interface, model: Any, h: Tensor, context: Any) -> tuple[Tensor, Tensor]:
    """M's answer and its unit; M is asked again on the way back, where its gradients are wanted.

    Raises:
        TypeError: if the context is more than one tensor.
    """
    if context is not None and not isinstance(context, Tensor):
        raise TypeError(f"a compiled critic takes one tensor as context, not {type(context).__name__}")
    parameters = list(model.parameters()) if isinstance(model, nn.Module) else []
    return torch.ops.synthgrad.ask(h, context, parameters, interface._number, model is not interface.gradient_model)


def _asked(h: Tensor, context: Tensor | None, number: int, copied: bool) -> tuple[Tensor, Tensor]:
    interface = _INTERFACES[number]
    prediction, brought = asked(interface.target if copied else interface.gradient_model, h, context)
    return prediction, torch.as_tensor(brought[0].unit, device=h.device, dtype=torch.float32)


@torch.library.custom_op(
    "synthgrad::ask",
    mutates_args=(),
    schema="(Tensor h, Tensor? context, Tensor[] parameters, int number, bool copied) -> (Tensor, Tensor)",
)
def _ask(
    h: Tensor, context: Tensor | None, parameters: list[Tensor], number: int, copied: bool
) -> tuple[Tensor, Tensor]:
    prediction, unit = _asked(h.detach(), context, number, copied)
    return prediction.detach().clone(), unit.clone()


@_ask.register_fake
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
    if (
        copied or not gradient.any()
    ):  # a copy learns nothing; where nothing arrived the critic's anchor is silent, too
        return found
    own = list(_INTERFACES[number].gradient_model.parameters())
    learning = [k for k, p in enumerate(own) if p.requires_grad]
    with torch.enable_grad():
        prediction, _ = _asked(h.detach(), context, number, copied)
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


_ask.register_autograd(_back, setup_context=_save)
