"""The state of a recurrent module as one message, and back."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

Leaves = Collection[int] | None
"""Which tensors of a state make the message, by place (an LSTM's hidden state is 0, its cell 1); None is all."""


def pack(state: Any, batch_dim: int | None = None, only: Leaves = None) -> Float[Tensor, "batch features"]:
    """All of a state's tensors side by side, one row per example.

    A state of shape (layers, batch, units), as ``nn.RNN``, ``nn.GRU`` and ``nn.LSTM`` have it, is one row of
    layers x units numbers per *example*: the batch is not its first dimension, whatever ``batch_first`` says.

    Args:
        state: a tensor, or any nest of tuples, lists and dicts of tensors.
        batch_dim: the dimension of the batch in each of them; None is 1 where there are three dimensions or more,
            as in torch's recurrent modules, and 0 where there are fewer, as in their cells.
        only: see ``Leaves``.

    Raises:
        TypeError: if there is no tensor in it.
        ValueError: if the tensors' batches differ, or ``only`` names one that is not there.

    Example:
        >>> pack((torch.zeros(2, 16, 32), torch.zeros(2, 16, 32))).shape  # an LSTM of two layers
        torch.Size([16, 128])
    """
    chosen = _chosen(_leaves(state), only)
    rows = [_rows(leaf, batch_dim) for leaf in chosen]
    if len({len(each) for each in rows}) > 1:
        shapes = ", ".join(str(tuple(leaf.shape)) for leaf in chosen)
        raise ValueError(f"the state's tensors have shapes {shapes} and no common batch; say batch_dim=")
    return rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)


def unpack(
    message: Float[Tensor, "batch features"], like: Any, batch_dim: int | None = None, only: Leaves = None
) -> Any:
    """The inverse of ``pack``: a message in the form of a state.

    Args:
        message: one row per example.
        like: a state of that form; tensors of it that are not in the message come back detached.
        batch_dim: as in ``pack``.
        only: as in ``pack``.

    Raises:
        ValueError: if the message's size does not fit the state's.
    """
    form = tree_flatten(like)[1]
    leaves = _leaves(like)
    widths = [_rows(leaf, batch_dim).shape[1] for leaf in _chosen(leaves, only)]
    if message.shape[1] != sum(widths):
        raise ValueError(
            f"a message of {message.shape[1]} numbers per example does not fit a state of {sum(widths)}"
        )
    parts = iter(message.split(widths, dim=1))
    found = [
        _like(next(parts), leaf, batch_dim) if only is None or place in only else leaf.detach()
        for place, leaf in enumerate(leaves)
    ]
    return tree_unflatten(found, form)


def restart(state: Any, done: Tensor, initial: Any = None, batch_dim: int | None = None) -> Any:
    """The state, begun anew for those examples whose episode has ended; no gradient goes back beyond it.

    Args:
        state: a tensor, or a nest of them.
        done: whether the episode has ended, shape (batch,).
        initial: a state to begin with; None is zeros.
        batch_dim: as in ``pack``.
    """
    if state is None:
        return None
    leaves, form = tree_flatten(state)
    begin = [torch.zeros_like(leaf) for leaf in leaves] if initial is None else tree_flatten(initial)[0]
    found = []
    for leaf, first in zip(leaves, begin, strict=True):
        shape = [1] * leaf.dim()
        shape[_dim(leaf, batch_dim)] = -1
        found.append(torch.where(done.bool().view(shape), first, leaf))
    return tree_unflatten(found, form)


def _leaves(state: Any) -> list[Tensor]:
    leaves = tree_flatten(state)[0]
    if not leaves or not all(isinstance(leaf, Tensor) for leaf in leaves):
        raise TypeError(f"a state is a tensor or a nest of tensors, not {type(state).__name__}")
    return leaves


def _chosen(leaves: list[Tensor], only: Leaves) -> list[Tensor]:
    if only is None:
        return leaves
    if not only or not set(only) <= set(range(len(leaves))):
        raise ValueError(f"only={tuple(only)}: the state has tensors 0 to {len(leaves) - 1}")
    return [leaf for place, leaf in enumerate(leaves) if place in only]


def _dim(leaf: Tensor, batch_dim: int | None) -> int:
    return (1 if leaf.dim() > 2 else 0) if batch_dim is None else batch_dim


def _rows(leaf: Tensor, batch_dim: int | None) -> Tensor:
    moved = leaf.movedim(_dim(leaf, batch_dim), 0)
    return moved.reshape(len(moved), math.prod(moved.shape[1:]))


def _like(rows: Tensor, leaf: Tensor, batch_dim: int | None) -> Tensor:
    dim = _dim(leaf, batch_dim)
    shape = leaf.movedim(dim, 0).shape[1:]
    return rows.reshape(len(rows), *shape).movedim(0, dim).contiguous().to(leaf.dtype)
