"""How well synthetic gradients agree with what arrives: running means over chunks."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from synthgrad.interface.numbers import wide
from synthgrad.interface.units import Statistics
from synthgrad.quality import Quality, compare


class Agreement(Statistics):
    """Compares M's predictions at chunk starts with the gradients that arrive there; ``last`` is the last pair."""

    errors: Tensor
    """Running ‖δ̂ - δ‖² and ‖δ‖²: each measured chunk has a weight of 1/100."""
    products: Tensor
    """Running ⟨δ̂, δ⟩ and ‖δ̂‖²: each measured chunk has a weight of 1/10."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("errors", torch.zeros(2))
        self.register_buffer("products", torch.zeros(2))
        self.last: tuple[Tensor, Tensor] | None = None

    @property
    def quality(self) -> Quality | None:
        """Quality of the last prediction; None before the first."""
        return compare(*self.last) if self.last is not None else None

    @property
    def r2(self) -> float:
        """1 - ⟨‖δ̂ - δ‖²⟩ / ⟨‖δ‖²⟩; NaN before the first gradient."""
        error, size = self.errors.tolist()
        return 1 - error / size if size > 0 else math.nan

    @property
    def slope(self) -> Tensor:
        """⟨δ̂, δ⟩ / ⟨δ̂, δ̂⟩, clamped to 0 to 1; 1 before the first gradient."""
        return (self.products[0] / self.products[1]).clamp(0, 1).nan_to_num(1.0)

    def update(self, answer: Tensor, delta: Tensor, slope: bool) -> None:
        """Add a pair of δ̂ and δ to the running means; to those of ``slope`` only if asked to."""
        answer, delta = wide(answer), wide(delta)
        _average(self.errors, [(answer - delta).square().sum(), delta.square().sum()], 0.01)
        if slope:
            _average(self.products, [(answer * delta).sum(), answer.square().sum()], 0.1)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the last pair out of copies and pickles."""
        return {**self.__dict__, "last": None}


def _average(mean: Tensor, values: list[Tensor], weight: float) -> None:
    """Update a running mean; values that are not finite are left out."""
    now = torch.stack(values).to(mean)
    after = torch.where(mean.any(), mean.lerp(now, weight), now)
    mean.copy_(torch.where(now.isfinite().all(), after, mean))
