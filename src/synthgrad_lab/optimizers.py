"""Learning rates over a run."""

from __future__ import annotations

import math

from torch.optim import Optimizer


def decayed(optimizer: Optimizer, how: str, share: float) -> None:
    """Set every group's rate for a share of the run, from its ``initial_lr``: cosine, from one to zero, or none."""
    factor = (1 + math.cos(math.pi * share)) / 2 if how == "cosine" else 1.0
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
