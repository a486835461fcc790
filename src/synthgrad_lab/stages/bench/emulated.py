"""A layer that only takes time, in place of work on another device: for the comparison of schedules alone."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor, nn


class Emulated(nn.Module):
    """x + w, where the forward pass takes a given time and the backward pass twice that.

    The process sleeps meanwhile, so that many stages can be timed on few cores. The gradients of the input and of
    the weight are separate nodes of the graph and take half of the backward pass each: a zero-bubble schedule can
    ask for them one at a time. An input that needs no gradient (data) has no node; the weight's then takes the
    whole time, so that all stages cost the same.

    Args:
        width: features, and parameters.
        forward_seconds: time that the forward pass of a batch takes, arithmetic included.
        rows: the size of that batch; the time is proportional to the size.

    Example:
        >>> layer = Emulated(8, forward_seconds=0.01, rows=64)
        >>> layer(torch.zeros(16, 8)).shape  # after 2.5 ms
        torch.Size([16, 8])
    """

    def __init__(self, width: int, forward_seconds: float, rows: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))
        self.seconds_per_row = forward_seconds / rows
        self.clock = _Clock()

    def forward(self, x: Tensor) -> Tensor:
        """Add the weight; returns after the layer's time."""
        began = time.monotonic()
        seconds = len(x) * self.seconds_per_row
        weights_share = 1 if x.requires_grad else 2
        moved = _Slow.apply(self.weight.expand_as(x), weights_share * seconds, self.clock)
        y = _Slow.apply(x, seconds, self.clock) + moved
        self.clock.sleep(began, seconds)
        return y


class _Slow(torch.autograd.Function):
    """The identity, with a backward pass that takes a given time."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, seconds: float, clock: _Clock) -> Tensor:
        ctx.seconds, ctx.clock = seconds, clock
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        ctx.clock.sleep(time.monotonic(), ctx.seconds)
        return gradients[0], None, None


class _Clock:
    """Sleeps until a deadline.

    A busy machine wakes a process late; the next sleep is that much shorter. Without this a schedule of many short
    passes would seem slower than one of few long passes.
    """

    late = 0.0

    def sleep(self, began: float, seconds: float) -> None:
        deadline = began + max(0.0, seconds - self.late)
        time.sleep(max(0.0, deadline - time.monotonic()))
        self.late = time.monotonic() - deadline
