"""A gradient model that sees only a part of the message."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from synthgrad.models.context import Context


class Masked(nn.Module):
    """A model that sees a fixed random part of the message's features, and zeros in place of the others.

    Args:
        model: the model, called as ``model(h, context)``.
        features: features of the message, which has shape (batch, features).
        share: the share of features that it sees, from 0 to 1.
        seed: seed of the random choice.

    References:
        Boven et al. 2023: a cerebellum that is connected sparsely to the cortex it predicts for.
    """

    seen: Tensor

    def __init__(self, model: nn.Module, features: int, share: float, seed: int = 0):
        super().__init__()
        if not 0 <= share <= 1:
            raise ValueError(f"share is {share}; it must be from 0 (sees nothing) to 1 (all)")
        self.model = model
        order = torch.randperm(features, generator=torch.Generator().manual_seed(seed))
        self.register_buffer("seen", torch.zeros(features).index_fill(0, order[: round(share * features)], 1.0))

    @property
    def units(self) -> Any:
        """The units that the model attaches to its predictions (a critic); None if it attaches none."""
        return getattr(self.model, "units", None)

    def forward(self, h: Float[Tensor, "batch features"], context: Context | None = None) -> Tensor:
        """The model's prediction from the visible features."""
        return self.model(h * self.seen.to(h.dtype), context)
