"""Draw a line: a cue names one of 7 targets, and the pen must move there in a straight line."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from synthgrad_lab.recurrent.tasks.base import Episodes, Network

TARGETS, STEPS, EVERY = 7, 10, 2
"""Targets on half a circle of radius 1; steps to get there; feedback on every second of them."""


class Lines(Episodes):
    """A scalar cue at the first step, then nothing; two coordinates out, and a loss at every second step.

    References:
        Boven et al. 2023 and Pemberton and Costa 2024 have tasks of this kind; the numbers are the project's own.
    """

    inputs, outputs = 1, 2

    def begin(self) -> tuple[Tensor, Tensor, Tensor]:
        """New random cues."""
        return episode(torch.randint(0, TARGETS, (self.batch,), generator=self.random).float())

    def losses(self, out: Tensor, y: Tensor) -> Tensor:
        """Squared distance, in squared radii."""
        return (out - y).square().sum(-1)

    def evaluate(self, network: Network, test: bool = False) -> dict[str, float]:
        """``mse``: the mean squared distance over *all* steps and targets. No data is held out: there are 7 cues."""
        x, y, _ = episode(torch.arange(TARGETS).float())
        return {"mse": self.losses(network(x), y).mean().item()}

    def show(self) -> str:
        """The target of each cue."""
        x, y, _ = episode(torch.arange(TARGETS).float())
        return "\n".join(
            f"cue {cue:5.2f} at step 0: a line to ({a:5.2f}, {b:5.2f}) in {STEPS} steps"
            for cue, (a, b) in zip(x[0, :, 0].tolist(), y[-1].tolist(), strict=True)
        )


def episode(cue: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, targets and the steps with feedback, for the numbers of targets (0 to 6), shape (batch,)."""
    x = torch.zeros(STEPS, len(cue), 1)
    x[0, :, 0] = cue / (TARGETS - 1) * 2 - 1
    angle = cue / (TARGETS - 1) * math.pi
    end = torch.stack([angle.cos(), angle.sin()], dim=-1)
    y = torch.arange(1, STEPS + 1).view(-1, 1, 1) / STEPS * end
    counts = torch.zeros(STEPS)
    counts[EVERY - 1 :: EVERY] = 1
    return x, y, counts
