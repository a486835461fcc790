"""What a stage keeps of its messages until their gradients come."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor

from synthgrad.stages.channels import Packet


class Owed:
    """Messages and contexts by step, the oldest forgotten first.

    Args:
        most: how many are kept.
        generation: how often the stage has been started: gradients of an earlier life's messages fit none of these.
    """

    def __init__(self, most: int, generation: int):
        self.most, self.generation = most, generation
        self.kept: OrderedDict[int, tuple[Tensor, Tensor | None]] = OrderedDict()
        self.sizes: set[torch.Size] = set()
        """Behind the batch, of all messages that have gone up."""

    def keep(self, step: int, h: Tensor, context: Tensor | None) -> None:
        """Keep what a gradient that comes later belongs to."""
        self.kept.pop(step, None)  # thrown back by the stage below, it comes again
        self.kept[step] = (h, context)
        self.sizes.add(h.shape[1:])
        while len(self.kept) > self.most:
            self.kept.popitem(last=False)

    def take(self, packet: Packet) -> tuple[Tensor | None, Tensor | None]:
        """The message and context that a gradient belongs to, once."""
        return self.kept.pop(packet.step, (None, None)) if packet.echo == self.generation else (None, None)

    def forget(self, step: int) -> None:
        """No more is wanted of a step."""
        self.kept.pop(step, None)

    @property
    def last(self) -> int | None:
        """The step of the last message whose gradient has not come."""
        return next(reversed(self.kept), None)

    def misfit(self, packet: Packet) -> str:
        """Why a gradient cannot be its own message's; where that is not known any more, nothing can be said."""
        kept = self.kept.get(packet.step) if packet.echo == self.generation else None
        wanted = packet.tensors[-1] if kept is None else kept[0]
        fits = all(t.shape[1:] == wanted.shape[1:] for t in packet.tensors)
        return "" if fits else f"its message was {tuple(wanted.shape)}"
