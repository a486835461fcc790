"""Checks of a message, and M's prediction for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from synthgrad.interface.numbers import finite, transformed, waits_for, wide

GradientModel = Callable[[Tensor, Any], Tensor]
"""``M(h, context)``: predicts the gradient of ``h``, in its shape and in the interface's units."""


@dataclass(eq=False)
class AttachedUnit:
    """The unit that a model (a critic) attaches to one of its predictions."""

    unit: float | Tensor
    """The factor that turns the prediction into a gradient."""
    anchor_due: bool = True
    """Whether the next gradient that arrives also differentiates the model's own loss; this is due once."""


ATTACHED_UNITS: ContextVar[list[AttachedUnit] | None] = ContextVar("ATTACHED_UNITS", default=None)
"""Collects the units of the prediction that is being made; a critic adds its own, through any wrapper around it."""


def check_message(h: Any) -> Tensor:
    """Check that a message is one floating-point tensor with a leading batch dimension.

    Raises:
        TypeError: if it is not.
    """
    if not isinstance(h, Tensor):
        raise TypeError(f"a message is one tensor, not {type(h).__name__}; send several over an interface each")
    if not h.is_floating_point() or h.dim() == 0:
        raise TypeError(
            f"a message is floating point with a leading batch dimension, not {h.dtype} of shape {tuple(h.shape)}"
        )
    return h


def check_attached(h: Tensor) -> None:
    """Check that the message has a graph.

    Raises:
        ValueError: if it is detached.
    """
    if torch.is_grad_enabled() and not h.requires_grad:
        raise ValueError(
            f"send() got a message of shape {tuple(h.shape)} without a graph; nothing could learn from it. "
            "Send the part's output itself, not a detached copy."
        )


def check_not_transformed(h: Tensor) -> Tensor:
    """Check that autograd itself will run the backward pass.

    Raises:
        NotImplementedError: inside a transform of torch.func.
    """
    if not torch.compiler.is_compiling() and transformed(h):
        raise NotImplementedError(
            "an interface teaches its model in the backward pass, which torch.func's transforms (grad, vmap, …) do "
            "not run: use loss.backward() with torch.func.functional_call, or eval()"
        )
    return h


def copy_if_inference(t: Any) -> Any:
    """Copy a tensor of inference_mode, which autograd can't save; return anything else as it is."""
    if torch.compiler.is_compiling() or not isinstance(t, Tensor) or torch.is_inference_mode_enabled():
        return t
    return t.clone() if t.is_inference() else t


def replace_nonfinite(h: Tensor, context: Any) -> tuple[Tensor | None, bool | Tensor]:
    """Keep messages that are not finite away from M: they put NaN into its gradients even where its error is zero.

    Returns:
        The message for M, and whether it and a floating-point context are finite. If they are not, the message is
        None; on an accelerator, and while a graph is compiled, it is zeros instead.
    """
    good = finite(h)
    if isinstance(context, Tensor) and context.is_floating_point():
        good = finite(context) & good
    if waits_for(h):
        return (h if good else None), good
    return torch.where(good, h, 0.0), good  # pyright: ignore[reportCallIssue, reportArgumentType]


def predict(model: Any, h: Tensor, context: Any) -> Tensor:
    """M(h, c), computed in the dtype of M's own parameters.

    Raises:
        ValueError: if the prediction has another shape than h.
    """
    parameters = model.parameters() if isinstance(model, nn.Module) else ()
    dtype = next((p.dtype for p in parameters if p.is_floating_point()), h.dtype)
    version = None if torch.compiler.is_compiling() or h.is_inference() else h._version
    prediction = model(copy_if_inference(h).to(dtype), copy_if_inference(context))
    if version is not None and h._version != version:
        raise ValueError("the gradient model wrote into the message; its first operation must not be in place")
    if prediction.shape != h.shape:
        raise ValueError(
            f"the gradient model answered in shape {tuple(prediction.shape)} to a message of shape "
            f"{tuple(h.shape)}; a gradient has the shape of its message"
        )
    return prediction


def predict_with_units(model: Any, h: Tensor, context: Any) -> tuple[Tensor, tuple[AttachedUnit, ...]]:
    """``predict``, and the units that M has attached to the prediction.

    Raises:
        ValueError: if several critics inside one M predict in different units.
    """
    if torch.compiler.is_compiling():  # there an operator calls the models that attach units
        return predict(model, h, context), ()
    token = ATTACHED_UNITS.set(attached := [])
    try:
        prediction = predict(model, h, context)
    finally:
        ATTACHED_UNITS.reset(token)
    if len(attached) > 1 and len({float(each.unit) for each in attached}) > 1:
        units = ", ".join(f"{float(each.unit):.3g}" for each in attached)
        raise ValueError(
            f"one M holds critics that answer in different units ({units}); give each its own interface"
        )
    return prediction, tuple(attached)


@contextmanager
def restore_buffers(model: Any, random: bool = False) -> Iterator[None]:
    """Restore M's buffers (batch norm's statistics) after the block; with ``random`` the random state, too."""
    training = isinstance(model, nn.Module) and model.training and not torch.compiler.is_compiling()
    buffers = [(b, b.clone()) for b in model.buffers() if not is_lazy(b)] if training else []
    with torch.random.fork_rng() if random and training else nullcontext():
        yield
    for buffer, value in buffers:
        buffer.copy_(value)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """⟨a, b⟩ in a's memory order, so that the gradient has a's layout: convolutions are fast on channels_last.

    Computed in single precision at least; half precision would overflow.
    """
    if a.dim() == 4 and a.is_contiguous(memory_format=torch.channels_last):
        a, b = a.permute(0, 2, 3, 1), b.permute(0, 2, 3, 1)
    return wide(a.flatten()).dot(wide(b.flatten()))


@dataclass(frozen=True, eq=False)
class CachedPrediction:
    """M's prediction for one message, with its unit.

    ``Interface.predict`` makes one, with M's graph, for a sender and a receiver in the same process, which would
    otherwise run M twice. It expires once the message, the context or a parameter of M has been written to.
    """

    prediction: Tensor
    """M(h, c), in M's unit; zeros if M was not run, because the message was not finite."""
    unit: float | Tensor
    """The factor that turns the prediction into a gradient."""
    attached: tuple[AttachedUnit, ...]
    """The units that M attached; if none, the interface's unit counts, as it is when the gradient arrives."""
    good: bool | Tensor
    """Whether the message was finite."""
    versions: tuple[tuple[Tensor, int, bool], ...] = ()
    """Each tensor the prediction depends on, autograd's count of writes to it, and whether it required grad."""

    @property
    def matches(self) -> bool:
        """Whether every tensor it depends on is unchanged, so that it can be used again."""
        return all(t._version == version and t.requires_grad == learnt for t, version, learnt in self.versions)


def record_versions(model: Any, *tensors: Any) -> tuple[tuple[Tensor, int, bool], ...]:
    """Record M's parameters and the tensors for ``CachedPrediction.versions``.

    Tensors of inference mode are left out: they have no count of writes.
    """
    if torch.compiler.is_compiling():
        return ()
    parameters = model.parameters() if isinstance(model, nn.Module) else ()
    found = (t for t in (*parameters, *tensors) if isinstance(t, Tensor) and not t.is_inference())
    return tuple((t, t._version, t.requires_grad) for t in found)
