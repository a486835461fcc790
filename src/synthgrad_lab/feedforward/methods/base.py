"""What every method has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from synthgrad import Interface
from synthgrad_lab.feedforward.settings import Settings

Losses = Iterator[tuple[Sequence[int], Tensor]]
"""Each loss of a step, ready to be differentiated, and the layers that learn from it."""


class Method(nn.Module):
    """How the layers learn. Its modules are what learns beside the layers: interfaces, heads.

    Args:
        s: the run's settings.
        parts: the layers; they are not modules of the method.
    """

    def __init__(self, s: Settings, parts: list[nn.Module]):
        super().__init__()
        self.settings = s
        self.parts = parts  # a list is not registered
        self.interfaces: Sequence[Interface] = ()  # one per edge, where the method has them

    def losses(self, x: Tensor, y: Tensor) -> Losses:
        """The losses of a step on images and labels; each is differentiated before the next is asked for."""
        raise NotImplementedError

    def context(self, y: Tensor) -> Tensor | None:
        """What gradient models may see: the labels, or nothing where they are blind."""
        return None if self.settings.method == "dni" else y

    def beside(self, k: int) -> list[nn.Parameter]:
        """What layer k's optimizer moves besides layer k, at the models' learning rate."""
        return []

    def at(self, step: int) -> None:
        """Called before each step."""


def criterion(out: Tensor, y: Tensor) -> Tensor:
    """The task's loss, in nats."""
    return F.cross_entropy(out.float(), y)


def run(parts: Sequence[nn.Module], x: Tensor) -> Tensor:
    """The parts one after the other."""
    for part in parts:
        x = part(x)
    return x
