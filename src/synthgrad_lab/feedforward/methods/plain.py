"""Backpropagation, and training of the top layer alone."""

from __future__ import annotations

import torch
from torch import Tensor

from synthgrad_lab.feedforward.methods.base import Losses, Method, criterion, run_parts


class Bprop(Method):
    """All layers learn from the task's loss."""

    def losses(self, x: Tensor, y: Tensor) -> Losses:
        """The task's loss, for all layers."""
        yield range(len(self.parts)), criterion(run_parts(self.parts, x), y)


class NoBprop(Method):
    """Only the top layer learns; the weights of those below stay random."""

    def losses(self, x: Tensor, y: Tensor) -> Losses:
        """The task's loss, for the top layer."""
        with torch.no_grad():
            h = run_parts(self.parts[:-1], x)
        yield [len(self.parts) - 1], criterion(self.parts[-1](h), y)
