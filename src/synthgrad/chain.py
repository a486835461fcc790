"""A chain of parts, each of which learns before the next one runs, or without any other one running at all."""

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
    """Run the parts one after the other and hand out each one's own loss, to be learnt from at once.

    Between two steps of this iterator the part that has just run can be differentiated and updated: its
    graph ends at the message that it received, so one part's activations are alive at a time. The
    backward pass of part k also teaches ``interfaces[k - 1]``; step that model together with part k.

    Args:
        parts: the modules, bottom first.
        interfaces: one per edge, ``interfaces[k]`` between part k and part k + 1.
        x: what the first part runs on.
        criterion: the task's loss of the last part's output.
        context: what the gradient models may see, for instance the labels.

    Yields:
        ``(k, loss)``: part k and its loss, ⟨δ̂, h⟩ or the task's. A first part that is frozen or has no parameters
        has nothing to learn; its loss is zero, and ``backward()`` on it does nothing.

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
    parts, interfaces = _matched(parts, interfaces)
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
            yield k, _sent(above, h, context, answer)


def completely_unlocked(
    parts: Iterable[Callable[[Any], Tensor]],
    interfaces: Iterable[Interface],
    x: Any,
    criterion: Callable[[Tensor], Tensor],
    context: Any = None,
    order: Iterable[int] | None = None,
) -> Iterator[tuple[int, Float[Tensor, ""]]]:
    """Run every part on a synthetic input and hand out each one's own loss: no part waits in either direction.

    All parts run before the first loss is handed out, so what one learns from does not depend on another's update,
    and any order gives the same result. Part k's loss also teaches the input model of ``interfaces[k]``
    with part k's output, and its backward pass the gradient model of ``interfaces[k - 1]``; step both together with
    part k. To use the trained chain, run the parts one after the other.

    Args:
        parts: the modules, bottom first.
        interfaces: one per edge, each with an input model, which is asked ``I(x)``.
        x: what the first part runs on, and what the input models see.
        criterion: the task's loss of the last part's output.
        context: what the gradient models may see, for instance the labels.
        order: in which the parts run and their losses come; the default is bottom first.

    Yields:
        ``(k, loss)``: part k and its loss.

    Raises:
        ValueError: if there isn't one interface fewer than parts, one has no input model, or the order is none.

    References:
        Jaderberg et al. 2017, Fig. 6 and section 3.1 (complete unlock).
    """
    parts, interfaces = _matched(parts, interfaces)
    order = list(range(len(parts)) if order is None else order)
    if sorted(order) != list(range(len(parts))):
        raise ValueError(f"order is {order}; it must name each of the {len(parts)} parts once")
    losses = []
    for k in order:
        h = parts[k](interfaces[k - 1].receive(context=context, source=x) if k else x)
        if k == len(parts) - 1:
            losses.append((k, criterion(h)))
        else:
            losses.append((k, _sent(interfaces[k], h, context) + interfaces[k].fit(h, source=x)))
    yield from losses


def fused(
    parts: Iterable[Callable[[Any], Tensor]], interfaces: Iterable[Interface], x: Any, context: Any = None
) -> Tensor:
    """The same chain as one graph, each interface called in its place (fused): for BP(λ), and for testing.

    Args:
        parts: the modules, bottom first.
        interfaces: one per edge.
        x: what the first part runs on.
        context: what the gradient models may see.

    Returns:
        The last part's output.

    Raises:
        ValueError: if there isn't one interface fewer than parts.
    """
    parts, interfaces = _matched(parts, interfaces)
    h = parts[0](x)
    for interface, part in zip(interfaces, parts[1:], strict=True):
        h = part(interface(h, context))
    return h


def _sent(interface: Interface, h: Tensor, context: Any, answer: CachedPrediction | None = None) -> Tensor:
    """The sender's loss; where nothing below learns, a zero that may be differentiated all the same."""
    if torch.is_grad_enabled() and not h.requires_grad:
        return h.new_zeros((), requires_grad=True)
    return interface.send(h, context, answer=answer)


def _matched(parts: Iterable[Any], interfaces: Iterable[Interface]) -> tuple[list[Any], list[Interface]]:
    parts, interfaces = list(parts), list(interfaces)
    if len(interfaces) != len(parts) - 1:
        raise ValueError(f"{len(parts)} parts want {len(parts) - 1} interfaces between them, not {len(interfaces)}")
    return parts, interfaces
