"""What may be sent over an edge, and M's answer to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from synthgrad.interface.numbers import finite, transformed, waits_for, wide


@dataclass(eq=False)
class Brought:
    """What a model may know about its answer."""

    unit: float | Tensor
    """What the answer is multiplied by."""
    anchored: bool = True
    """Whether the next gradient that arrives for it also differentiates the model's own loss, which is due once."""


BROUGHT: ContextVar[list[Brought] | None] = ContextVar("BROUGHT", default=None)
"""For the answer that is being made; a model adds to it, through whatever wraps the model."""


def checked(h: Any) -> Tensor:
    """The message, if it is one.

    Raises:
        TypeError: if it is not one floating-point tensor with a leading batch dimension.
    """
    if not isinstance(h, Tensor):
        raise TypeError(f"a message is one tensor, not {type(h).__name__}; send several over an interface each")
    if not h.is_floating_point() or h.dim() == 0:
        raise TypeError(
            f"a message is floating point with a leading batch dimension, not {h.dtype} of shape {tuple(h.shape)}"
        )
    return h


def attached(h: Tensor) -> None:
    """Check that the message has a graph.

    Raises:
        ValueError: if it is detached.
    """
    if torch.is_grad_enabled() and not h.requires_grad:
        raise ValueError(
            f"send() got a message of shape {tuple(h.shape)} without a graph; nothing could learn from it. "
            "Send the part's output itself, not a detached copy."
        )


def plain(h: Tensor) -> Tensor:
    """Check that autograd itself runs the backward pass.

    Raises:
        NotImplementedError: inside a transform of torch.func.
    """
    if not torch.compiler.is_compiling() and transformed(h):
        raise NotImplementedError(
            "an interface teaches its model in the backward pass, which torch.func's transforms (grad, vmap, …) do "
            "not run: use loss.backward() with torch.func.functional_call, or eval()"
        )
    return h


def usable(t: Any) -> Any:
    """A tensor that autograd may save: one made under inference_mode is copied, anything else is left as it is."""
    if torch.compiler.is_compiling() or not isinstance(t, Tensor) or torch.is_inference_mode_enabled():
        return t
    return t.clone() if t.is_inference() else t


def ask(model: Any, h: Tensor, context: Any) -> Tensor:
    """M(h, c), in the dtype of M's own parameters.

    Raises:
        ValueError: if the answer has another shape than h.
    """
    parameters = model.parameters() if isinstance(model, nn.Module) else ()
    dtype = next((p.dtype for p in parameters if p.is_floating_point()), h.dtype)
    version = None if torch.compiler.is_compiling() or h.is_inference() else h._version
    prediction = model(usable(h).to(dtype), usable(context))
    if version is not None and h._version != version:
        raise ValueError("the gradient model wrote into the message; its first operation must not be in place")
    if prediction.shape != h.shape:
        raise ValueError(
            f"the gradient model answered in shape {tuple(prediction.shape)} to a message of shape "
            f"{tuple(h.shape)}; a gradient has the shape of its message"
        )
    return prediction


def asked(model: Any, h: Tensor, context: Any) -> tuple[Tensor, tuple[Brought, ...]]:
    """``ask``, and what M knows about its answer.

    Raises:
        ValueError: if several critics in one M answer in different units.
    """
    if torch.compiler.is_compiling():  # a model that brings something is asked through an operator there
        return ask(model, h, context), ()
    token = BROUGHT.set(brought := [])
    try:
        prediction = ask(model, h, context)
    finally:
        BROUGHT.reset(token)
    if len(brought) > 1 and len({float(each.unit) for each in brought}) > 1:
        units = ", ".join(f"{float(each.unit):.3g}" for each in brought)
        raise ValueError(
            f"one M holds critics that answer in different units ({units}); give each its own interface"
        )
    return prediction, tuple(brought)


@contextmanager
def still(model: Any, random: bool = False) -> Iterator[None]:
    """Ask M without moving its buffers (batch norm's statistics); with ``random``, nor the random state."""
    training = isinstance(model, nn.Module) and model.training and not torch.compiler.is_compiling()
    buffers = [(b, b.clone()) for b in model.buffers() if not is_lazy(b)] if training else []
    with torch.random.fork_rng() if random and training else nullcontext():
        yield
    for buffer, value in buffers:
        buffer.copy_(value)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """⟨a, b⟩ in a's order of memory, so that the gradient lies as a does: pixel by pixel, for fast convolutions.

    In single precision at least, which half precision's sums would overflow.
    """
    if a.dim() == 4 and a.is_contiguous(memory_format=torch.channels_last):
        a, b = a.permute(0, 2, 3, 1), b.permute(0, 2, 3, 1)
    return wide(a.flatten()).dot(wide(b.flatten()))


@dataclass(frozen=True, eq=False)
class Answer:
    """M's answer to one message, and the unit that belongs to it.

    ``Interface.predict`` makes one, with M's graph, for a sender and a receiver in the same process that would
    otherwise ask M twice. It is void once the message, the context or a parameter of M has been written to.
    """

    prediction: Tensor
    """M(h, c), in M's unit; zeros where M was not asked, since the message was not finite."""
    unit: float | Tensor
    """What the prediction is multiplied by."""
    brought: tuple[Brought, ...]
    """What M knew about it. If nothing, the unit is the interface's, and has moved on when the gradient arrives."""
    good: bool | Tensor
    """Whether the message was finite."""
    origins: tuple[tuple[Tensor, int, bool], ...] = ()
    """What the answer was made from, autograd's count of writes to it, and whether it was being learnt."""

    @property
    def fresh(self) -> bool:
        """Whether nothing that it was made from has been written to since."""
        return all(t._version == version and t.requires_grad == learnt for t, version, learnt in self.origins)


def origins_of(model: Any, *tensors: Any) -> tuple[tuple[Tensor, int, bool], ...]:
    """For ``Answer.origins``; tensors of inference mode can't be written to, and are not counted."""
    if torch.compiler.is_compiling():
        return ()
    parameters = model.parameters() if isinstance(model, nn.Module) else ()
    found = (t for t in (*parameters, *tensors) if isinstance(t, Tensor) and not t.is_inference())
    return tuple((t, t._version, t.requires_grad) for t in found)


def guarded(h: Tensor, context: Any) -> tuple[Tensor | None, bool | Tensor]:
    """The message that M may be asked about, and whether it and a context of numbers were finite.

    One that is not would put NaN into M's gradients even where its error is zero. None stands for it; on a device
    that is not waited for, and while a graph is being compiled, M is asked about zeros instead.
    """
    good = finite(h)
    if isinstance(context, Tensor) and context.is_floating_point():
        good = finite(context) & good
    if waits_for(h):
        return (h if good else None), good
    return torch.where(good, h, 0.0), good  # pyright: ignore[reportCallIssue, reportArgumentType]
