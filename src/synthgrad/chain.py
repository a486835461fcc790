"""Chains of parts: each part learns before the next one runs, or without waiting for any other part."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from synthgrad.interface.interface import Interface
from synthgrad.interface.message import CachedPrediction


def unlocked(
    parts: Iterable[Callable[[Any], Tensor]],
    interfaces: Iterable[Interface],
    x: Any,
    criterion: Callable[[Tensor], Tensor],
    context: Any = None,
) -> Iterator[tuple[int, Float[Tensor, ""]]]:
    """Run the parts one after the other and yield each part's own loss, which is ready to be differentiated.

    Between two steps of this iterator the part that has just run can be differentiated and updated. Its graph
    begins at the message that it received, so only one part's activations are alive at a time. The backward pass of
    part k also teaches ``interfaces[k - 1]``; step that model together with part k.

    Args:
        parts: the modules, bottom first.
        interfaces: one per edge, ``interfaces[k]`` between part k and part k + 1.
        x: the first part's input.
        criterion: the task's loss of the last part's output.
        context: what the gradient models may see, for instance the labels.

    Yields:
        ``(k, loss)``: the part's number and its loss, ⟨δ̂, h⟩ or the task's. If the first part is frozen or has no
        parameters, its loss is zero, and ``backward()`` on it does nothing.

    Raises:
        ValueError: if there isn't one interface fewer than parts.

    Example:
        >>> for k, loss in unlocked(parts, interfaces, x, lambda out: F.cross_entropy(out, y), context=y):
        ...     optimizers[k].zero_grad()
        ...     loss.backward()
        ...     optimizers[k].step()

    References:
        Jaderberg et al. 2017, Fig. 2 and section 2.1.
    """
    parts, interfaces = _check_lengths(parts, interfaces)
    h, answer = x, None
    for k, part in enumerate(parts):
        if k > 0:
            h = interfaces[k - 1].receive(h, context, answer=answer)
        h = part(h)
        if k == len(parts) - 1:
            yield k, criterion(h)
        else:
            above = interfaces[k]
            answer = above.predict(h, context) if above.training and torch.is_grad_enabled() else None
            yield k, _sender_loss(above, h, context, answer)


def completely_unlocked(
    parts: Iterable[Callable[[Any], Tensor]],
    interfaces: Iterable[Interface],
    x: Any,
    criterion: Callable[[Tensor], Tensor],
    context: Any = None,
    order: Iterable[int] | None = None,
) -> Iterator[tuple[int, Float[Tensor, ""]]]:
    """Run every part on a synthetic input and yield each part's own loss: no part waits in either direction.

    All parts run before the first loss is yielded, so no loss depends on another part's update, and any order gives
    the same result. Part k's loss also teaches the input model of ``interfaces[k]``
    with part k's output, and its backward pass the gradient model of ``interfaces[k - 1]``; step both together with
    part k. To use the trained chain, run the parts one after the other.

    Args:
        parts: the modules, bottom first.
        interfaces: one per edge, each with an input model, called as ``I(x)``.
        x: the input of the first part and of the input models.
        criterion: the task's loss of the last part's output.
        context: what the gradient models may see, for instance the labels.
        order: the order in which parts run and losses are yielded; the default is bottom first.

    Yields:
        ``(k, loss)``: the part's number and its loss.

    Raises:
        ValueError: if there isn't one interface fewer than parts, an interface has no input model, or ``order``
            does not name each part once.

    References:
        Jaderberg et al. 2017, Fig. 6 and section 3.1 (complete unlock).
    """
    parts, interfaces = _check_lengths(parts, interfaces)
    order = list(range(len(parts)) if order is None else order)
    if sorted(order) != list(range(len(parts))):
        raise ValueError(f"order is {order}; it must name each of the {len(parts)} parts once")
    losses = []
    for k in order:
        h = parts[k](interfaces[k - 1].receive(context=context, source=x) if k else x)
        if k == len(parts) - 1:
            losses.append((k, criterion(h)))
        else:
            losses.append((k, _sender_loss(interfaces[k], h, context) + interfaces[k].fit(h, source=x)))
    yield from losses


def fused(
    parts: Iterable[Callable[[Any], Tensor]], interfaces: Iterable[Interface], x: Any, context: Any = None
) -> Tensor:
    """Run the chain as one graph, with each interface called (fused) in its place: for BP(λ), and for tests.

    Args:
        parts: the modules, bottom first.
        interfaces: one per edge.
        x: the first part's input.
        context: what the gradient models may see.

    Returns:
        The last part's output.

    Raises:
        ValueError: if there isn't one interface fewer than parts.
    """
    parts, interfaces = _check_lengths(parts, interfaces)
    h = parts[0](x)
    for interface, part in zip(interfaces, parts[1:], strict=True):
        h = part(interface(h, context))
    return h


def _sender_loss(interface: Interface, h: Tensor, context: Any, answer: CachedPrediction | None = None) -> Tensor:
    """The sender's loss; if nothing below learns, a zero that can still be differentiated."""
    if torch.is_grad_enabled() and not h.requires_grad:
        return h.new_zeros((), requires_grad=True)
    return interface.send(h, context, answer=answer)


def _check_lengths(parts: Iterable[Any], interfaces: Iterable[Interface]) -> tuple[list[Any], list[Interface]]:
    """Both as lists, after checking that there is one interface fewer than parts."""
    parts, interfaces = list(parts), list(interfaces)
    if len(interfaces) != len(parts) - 1:
        raise ValueError(f"{len(parts)} parts need {len(parts) - 1} interfaces between them, not {len(interfaces)}")
    return parts, interfaces
