"""Backprop, and training the top layer alone."""

from __future__ import annotations

import torch
from torch import Tensor

from synthgrad_lab.feedforward.methods.base import Losses, Method, criterion, run


class Bprop(Method):
    """All layers learn from the task's loss."""

    def losses(self, x: Tensor, y: Tensor) -> Losses:
        """One loss for all."""
        yield range(len(self.parts)), criterion(run(self.parts, x), y)


class NoBprop(Method):
    """The top layer learns; no error signal reaches those below, whose weights stay random."""

    def losses(self, x: Tensor, y: Tensor) -> Losses:
        """The top layer's."""
        with torch.no_grad():
            h = run(self.parts[:-1], x)
        yield [len(self.parts) - 1], criterion(self.parts[-1](h), y)
