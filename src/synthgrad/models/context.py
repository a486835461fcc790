"""The context of a gradient model beside the message: labels, which become one-hot, or rows of numbers."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from synthgrad.interface.numbers import waits_for

NO_LABEL = -100
"""Torch's label for an example that has none."""
Context = Integer[Tensor, " batch"] | Float[Tensor, "batch context"]
"""Labels 0 … context-1, or a row of numbers per example."""


def context_of(context: Any, width: int, h: Tensor) -> Tensor | None:
    """The context as numbers of shape (batch, width): labels become one-hot; no label (-100) is a row of zeros."""
    if width == 0:
        return None  # a model without a context ignores the one that other models get
    if context is None:
        raise ValueError(f"this model needs a context of {width} (labels, or rows of numbers) and got none")
    if not isinstance(context, Tensor):
        raise TypeError(f"the context is a tensor, not {type(context).__name__}: torch.tensor(y)")
    if not context.is_floating_point() and context.shape == h.shape[:1]:
        _check_labels(context, width)
        context = context[:, None] == torch.arange(width, device=context.device)
    if context.shape != (len(h), width):
        one_each = context.shape == h.shape[:1]
        raise ValueError(
            f"the context has shape {tuple(context.shape)}, not ({len(h)},) labels or ({len(h)}, {width}) numbers"
            + (f"; labels are whole numbers, not {context.dtype}: y.long()" if one_each else "")
        )
    return context.to(h.dtype)


def _check_labels(labels: Tensor, classes: int) -> None:
    """Refuse labels out of range, of which one-hot would make zeros; not on accelerators, where it synchronises."""
    if not waits_for(labels) or not len(labels):
        return
    least, most = (int(each) for each in labels.aminmax())
    if most >= classes or (least < 0 and ((labels < 0) & (labels != NO_LABEL)).any()):
        raise ValueError(
            f"labels are from {least} to {most}; this model knows 0 to {classes - 1}, and {NO_LABEL} for none"
        )
