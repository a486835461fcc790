"""Stages whose layer only takes time, in place of work on another device: for the comparison of schedules alone."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthgrad import Interface, Stage
from synthgrad.models import MLP


@dataclass(frozen=True)
class Sizes:
    """Sizes of an emulated chain."""

    stages: int
    forward_seconds: float
    batch: int = 64
    width: int = 64
    """Features of every message."""


def emulated_stage(sizes: Sizes, k: int) -> Stage:
    """Build stage k of a chain with emulated compute; everything else is real, gradient models, too."""
    torch.manual_seed(k)
    part, last = emulated_part(sizes, k, sizes.stages), k == sizes.stages - 1
    above = None if last else Interface(MLP(sizes.width, hidden=16))
    parameters = [*part.parameters(), *(above.parameters() if above is not None else [])]
    x = torch.randn(sizes.batch, sizes.width)
    return Stage(
        part=part,
        optimizer=torch.optim.Adam(parameters, lr=1e-3),
        above=above,
        criterion=F.mse_loss if last else None,
        data=(lambda step: (x, x)) if k == 0 else None,
        conditioned=False,
    )


def emulated_part(sizes: Sizes, k: int, of: int) -> nn.Module:
    """Build part k of ``of``; the time of the whole chain does not depend on their number."""
    return Emulated(sizes.width, sizes.forward_seconds * sizes.stages / of, sizes.batch)


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
        moved = _Slow.apply(self.weight.expand_as(x), seconds if x.requires_grad else 2 * seconds, self.clock)
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
