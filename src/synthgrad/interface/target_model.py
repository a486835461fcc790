"""A frozen copy of a gradient model, refreshed now and then, so that senders do not learn from a moving target."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


class TargetModel(nn.Module):
    """A frozen copy of M, refreshed every ``every`` gradients.

    Args:
        model: M, a module.
        every: gradients between two refreshes.

    References:
        Mnih et al. 2015 (target networks); for synthetic gradients, Pemberton and Costa 2024.
    """

    gradients: Tensor

    def __init__(self, model: Any, every: int):
        super().__init__()
        if not isinstance(model, nn.Module):
            raise TypeError(f"only a module has a target copy, not {type(model).__name__}; leave out target_every")
        if not isinstance(every, int) or every < 1:
            raise ValueError(
                f"target_every is {every}; it counts gradients and must be a whole number from 1, or 0 for no copy"
            )
        self.every = every
        self.copy = copy.deepcopy(model).requires_grad_(False)
        self._live = (model,)  # in a tuple, so that it is not registered as a child: the interface owns it
        self.register_buffer("gradients", torch.tensor(0))

    @torch.no_grad()
    def forward(self, h: Tensor, context: Any) -> Tensor:
        """The prediction of the copy; only a critic's ``loss_scale`` is the current one."""
        for copied, live in zip(self.copy.modules(), self._live[0].modules(), strict=True):
            if hasattr(live, "loss_scale"):
                copied.loss_scale = live.loss_scale
        return self.copy(h, context)

    @torch.no_grad()
    def count_gradient(self, model: Any) -> None:
        """Count a gradient; at every ``every``-th one copy M again."""
        self.gradients += 1
        if self.gradients % self.every == 0:
            self.copy.load_state_dict(model.state_dict())
