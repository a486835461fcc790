"""Pack the state of a recurrent module into one message, and unpack it."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

Leaves = Collection[int] | None
"""The tensors of a state that make the message, by place (an LSTM's hidden state is 0, its cell 1); None means all
floating-point tensors. Tensors of whole numbers (positions, counts) carry no gradient, and pass unchanged."""


def pack(state: Any, batch_dim: int | None = None, only: Leaves = None) -> Float[Tensor, "batch features"]:
    """Concatenate a state's floating-point tensors, one row per example.

    A state of shape (layers, batch, units), as ``nn.RNN``, ``nn.GRU`` and ``nn.LSTM`` have it, is one row of
    layers x units numbers per *example*: the batch is not its first dimension, whatever ``batch_first`` says.

    Args:
        state: a tensor, or any nest of tuples, lists and dicts of tensors; tensors of whole numbers are left out.
        batch_dim: the dimension of the batch in each tensor; None means 1 for tensors of three dimensions or
            more, as in torch's recurrent modules, and 0 for fewer, as in their cells.
        only: see ``Leaves``.

    Raises:
        TypeError: if it contains no floating-point tensor.
        ValueError: if the tensors' batches differ, one has no batch, or ``only`` names one that is not there.

    Example:
        >>> pack((torch.zeros(2, 16, 32), torch.zeros(2, 16, 32))).shape  # an LSTM of two layers
        torch.Size([16, 128])
    """
    leaves = _leaves(state)
    chosen = [leaves[place] for place in _chosen(leaves, only)]
    rows = [_rows(leaf, batch_dim) for leaf in chosen]
    if len({len(each) for each in rows}) > 1:
        shapes = ", ".join(str(tuple(leaf.shape)) for leaf in chosen)
        raise ValueError(f"the state's tensors have shapes {shapes} and no common batch; pass batch_dim=")
    return rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)


def unpack(
    message: Float[Tensor, "batch features"], like: Any, batch_dim: int | None = None, only: Leaves = None
) -> Any:
    """The inverse of ``pack``: a message in the form of a state.

    Args:
        message: one row per example.
        like: a state of that form; its tensors that are not in the message come back detached.
        batch_dim: as in ``pack``.
        only: as in ``pack``.

    Raises:
        ValueError: if the message's size does not fit the state's.
    """
    form = tree_flatten(like)[1]
    leaves = _leaves(like)
    chosen = _chosen(leaves, only)
    widths = [_rows(leaves[place], batch_dim).shape[1] for place in chosen]
    if message.shape[1] != sum(widths):
        raise ValueError(
            f"a message of {message.shape[1]} numbers per example does not fit a state of {sum(widths)}"
        )
    found = [leaf.detach() for leaf in leaves]
    for place, part in zip(chosen, message.split(widths, dim=1), strict=True):
        found[place] = _like(part, leaves[place], batch_dim)
    return tree_unflatten(found, form)


def restart(state: Any, done: Tensor, initial: Any = None, batch_dim: int | None = None) -> Any:
    """Reset the state of examples whose episode has ended; no gradient flows back beyond the reset.

    Args:
        state: a tensor, or a nest of them.
        done: whether the episode has ended, shape (batch,).
        initial: the state to reset to; None is zeros.
        batch_dim: as in ``pack``.

    Raises:
        ValueError: if ``done`` has another shape.
    """
    if state is None:
        return None
    form = tree_flatten(state)[1]
    leaves = _leaves(state)
    begin = [None] * len(leaves) if initial is None else tree_flatten(initial)[0]
    found = []
    for leaf, first in zip(leaves, begin, strict=True):
        if leaf.dim():
            dim, shape = _dim(leaf, batch_dim), [1] * leaf.dim()
            shape[dim] = -1
            ends = check_done(done, leaf.shape[dim]).view(shape)
            leaf = torch.where(ends, torch.zeros_like(leaf) if first is None else first, leaf)
        found.append(leaf)
    return tree_unflatten(found, form)


def check_done(done: Any, batch: int) -> Tensor:
    """Check ``done``, and convert it to one truth value for each example.

    Raises:
        TypeError: if it is no tensor.
        ValueError: if it has another shape than (batch,).
    """
    if not isinstance(done, Tensor):
        raise TypeError(f"done is a tensor of shape ({batch},), not {type(done).__name__}: torch.tensor(done)")
    if done.shape != (batch,):
        raise ValueError(f"done has shape {tuple(done.shape)}, wanted ({batch},), a truth value for each example")
    return done.bool()


def _leaves(state: Any) -> list[Tensor]:
    leaves = tree_flatten(state)[0]
    wrong = [leaf for leaf in leaves if not isinstance(leaf, Tensor)]
    if wrong or not leaves:
        inside = f" with a {type(wrong[0]).__name__} in it" if wrong and wrong[0] is not state else ""
        raise TypeError(f"a state is a tensor or a nest of tensors, not {type(state).__name__}{inside}")
    return leaves


def _chosen(leaves: list[Tensor], only: Leaves) -> list[int]:
    """The places of the tensors that make the message."""
    floating = [k for k, leaf in enumerate(leaves) if leaf.is_floating_point()]
    if only is None:
        chosen = floating
    elif not only or not set(only) <= set(range(len(leaves))):
        raise ValueError(f"only={tuple(only)}: the state has tensors 0 to {len(leaves) - 1}")
    else:
        chosen = sorted(set(only))
    if not chosen or not set(chosen) <= set(floating):
        kinds = ", ".join(str(leaf.dtype) for leaf in leaves)
        raise TypeError(f"a message is made of floating-point tensors; the state has {kinds}")
    if short := [leaves[k].shape for k in chosen if leaves[k].dim() < 2]:
        raise ValueError(
            f"a state's tensor has shape {tuple(short[0])} and no batch; wanted (batch, units): state.unsqueeze(0)"
        )
    return chosen


def _dim(leaf: Tensor, batch_dim: int | None) -> int:
    return (1 if leaf.dim() > 2 else 0) if batch_dim is None else batch_dim


def _rows(leaf: Tensor, batch_dim: int | None) -> Tensor:
    moved = leaf.movedim(_dim(leaf, batch_dim), 0)
    return moved.reshape(len(moved), math.prod(moved.shape[1:]))


def _like(rows: Tensor, leaf: Tensor, batch_dim: int | None) -> Tensor:
    dim = _dim(leaf, batch_dim)
    shape = leaf.movedim(dim, 0).shape[1:]
    return rows.reshape(len(rows), *shape).movedim(0, dim).contiguous().to(leaf.dtype)
