"""Root mean squares and finiteness of tensors: exact where squares overflow, and as cheap as one norm."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LEAST, MOST = 1e-15, 1e15
"""The range in which a norm in single precision is exact enough; outside, squares overflow or vanish."""


def waits_for(t: Tensor) -> bool:
    """Whether numbers may be read out of a tensor: on the CPU, outside compiled and transformed functions."""
    return t.is_cpu and not torch.compiler.is_compiling() and not transformed(t)


def transformed(t: Tensor) -> bool:
    """Whether the tensor belongs to a transform of torch.func (vmap, grad, …)."""
    return torch._C._functorch.is_functorch_wrapped_tensor(t)  # pyright: ignore[reportAttributeAccessIssue]


def wide(t: Tensor) -> Tensor:
    """The tensor in single precision at least."""
    return t.to(torch.promote_types(t.dtype, torch.float32))


def root_mean_square(x: Tensor) -> Tensor:
    """Root mean square over all elements, a scalar in single precision at least; 0 for an empty tensor."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    norm = torch.linalg.vector_norm(x, dtype=dtype)
    if waits_for(x):
        if dtype is torch.float32 and not LEAST < norm.item() < MOST:
            norm = torch.linalg.vector_norm(x, dtype=torch.float64)
    elif x.numel():
        largest = torch.linalg.vector_norm(x, math.inf, dtype=dtype)
        safe = torch.where((largest > 0) & largest.isfinite(), largest, 1.0)
        norm = torch.where(largest.isfinite(), torch.linalg.vector_norm(x / safe, dtype=dtype) * safe, largest)
    return norm / math.sqrt(max(x.numel(), 1))


def finite(x: Tensor) -> bool | Tensor:
    """Whether every element is finite; a tensor where reading it would synchronise a device."""
    if not waits_for(x):
        return x.isfinite().all()
    return math.isfinite(torch.linalg.vector_norm(x).item()) or bool(x.isfinite().all())
