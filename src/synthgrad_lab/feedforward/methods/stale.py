"""Stale gradients: a layer learns from an earlier batch, once that batch's gradient has come down to it."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from torch import Tensor, nn

from synthgrad_lab.feedforward.methods.base import Losses, Method, criterion
from synthgrad_lab.feedforward.settings import Settings


class Stale(Method):
    """Each edge hands a gradient down one step late: layer k of n learns from the batch of n - 1 - k steps ago.

    This needs no model, and no layer waits for those above it; but the messages of the steps in between must be
    kept, and run forwards again with the newest weights.

    References:
        Huo et al. 2018, features replay (arXiv 1807.04511).
    """

    def __init__(self, s: Settings, parts: list[nn.Module]):
        super().__init__(s, parts)
        self.kept: list[deque[Tensor]] = [deque() for _ in parts]  # inputs whose gradient has not come yet
        self.arrived: list[Tensor | None] = [None] * len(parts)  # the gradient for layer k's oldest kept input

    def losses(self, x: Tensor, y: Tensor) -> Losses:
        """Each layer's loss on the oldest batch whose gradient it has; none in the first steps."""
        h, top = x, len(self.parts) - 1
        for k, part in enumerate(self.parts):
            self.kept[k].append(h.detach())
            delta, self.arrived[k] = self.arrived[k], None
            if k < top:
                with torch.no_grad():
                    h = part(h)  # for the layers above, before this one moves
                if delta is None:
                    continue
            leaf = self.kept[k].popleft().requires_grad_(k > 0)
            replay = part(leaf)
            yield [k], criterion(replay, y) if delta is None else (replay * delta).sum()
            if k > 0:
                self.arrived[k - 1] = leaf.grad
            leaf.requires_grad_(False)

    def get_extra_state(self) -> dict[str, Any]:
        """The messages and gradients under way, for a checkpoint."""
        return {"kept": [[h.clone() for h in kept] for kept in self.kept], "arrived": list(self.arrived)}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore the messages and gradients under way."""
        self.kept = [deque(h.clone() for h in kept) for kept in state["kept"]]
        self.arrived = list(state["arrived"])
