"""The base class of all methods."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from synthgrad import Interface
from synthgrad_lab.feedforward.settings import Settings

Losses = Iterator[tuple[Sequence[int], Tensor]]
"""The losses of a step, ready to be differentiated, each with the layers that learn from it."""


class Method(nn.Module):
    """How the layers learn. Its submodules, interfaces or heads, are trained beside the layers (``parts``)."""

    def __init__(self, s: Settings, parts: list[nn.Module]):
        super().__init__()
        self.settings = s
        self.parts = parts  # no submodules: torch does not register a list
        self.interfaces: Sequence[Interface] = ()  # one between every two layers, where the method has them

    def losses(self, x: Tensor, y: Tensor) -> Losses:
        """The losses of a step on images and labels; each must be differentiated before the next one is drawn."""
        raise NotImplementedError

    def context(self, y: Tensor) -> Tensor | None:
        """The context of the gradient models: the labels; None for dni, whose models see no label."""
        return None if self.settings.method == "dni" else y

    def extra_parameters(self, k: int) -> list[nn.Parameter]:
        """Parameters that layer k's optimizer moves besides the layer's own, at the models' learning rate."""
        return []

    def set_step(self, step: int) -> None:
        """Set values that change over the run; called before each step."""


def criterion(out: Tensor, y: Tensor) -> Tensor:
    """The task's loss: cross-entropy in nats."""
    return F.cross_entropy(out.float(), y)


def run_parts(parts: Sequence[nn.Module], x: Tensor) -> Tensor:
    """The output of a chain of parts."""
    for part in parts:
        x = part(x)
    return x
