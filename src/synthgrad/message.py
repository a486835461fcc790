"""What may be sent over an edge, and M's answer to the message that was sent last."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


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
    """See that somebody can learn from a message.

    Raises:
        ValueError: if it is detached.
    """
    if torch.is_grad_enabled() and not h.requires_grad:
        raise ValueError(
            f"send() got a message of shape {tuple(h.shape)} without a graph; nothing could learn from it. "
            "Send the part's output itself, not a detached copy."
        )


def ask(model: Any, h: Tensor, context: Any) -> Tensor:
    """M(h, c), in the dtype of M's own parameters.

    Raises:
        ValueError: if the answer has another shape than h.
    """
    parameters = model.parameters() if isinstance(model, nn.Module) else ()
    dtype = next((p.dtype for p in parameters if p.is_floating_point()), h.dtype)
    prediction = model(h.to(dtype), context)
    if prediction.shape != h.shape:
        raise ValueError(
            f"the gradient model answered in shape {tuple(prediction.shape)} to a message of shape "
            f"{tuple(h.shape)}; a gradient has the shape of its message"
        )
    return prediction


def dot(a: Tensor, b: Tensor) -> Tensor:
    """⟨a, b⟩ in a's order of memory, so that the gradient lies as a does: pixel by pixel, for fast convolutions."""
    if a.dim() == 4 and a.is_contiguous(memory_format=torch.channels_last):
        a, b = a.permute(0, 2, 3, 1), b.permute(0, 2, 3, 1)
    return a.flatten().dot(b.flatten())


class Answer:
    """M's answer to a message, kept so that a receiver in the same process need not ask again."""

    def __init__(self, model: Any, h: Tensor, context: Any):
        self.asked = (model, h, context)
        # Whatever M's answer came from; autograd counts writes in place, as optimizers do, to each of them.
        parameters = model.parameters() if isinstance(model, nn.Module) else ()
        self.origins = [*parameters, *(t for t in (h, context) if isinstance(t, Tensor))]
        self.versions = [t._version for t in self.origins]
        self.with_graph = torch.is_grad_enabled()
        self.prediction = ask(model, h, context)

    def fits(self, model: Any, h: Tensor, context: Any) -> bool:
        """Whether this is what M would answer: the same M, memory and context, not written to in between."""
        asked, a, told = self.asked
        return (
            asked is model
            and told is context
            and (a.data_ptr(), a.shape, a.stride(), a.dtype) == (h.data_ptr(), h.shape, h.stride(), h.dtype)
            and self.versions == [t._version for t in self.origins]
            and (self.with_graph or not torch.is_grad_enabled())
        )
