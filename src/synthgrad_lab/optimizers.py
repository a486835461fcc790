"""Learning rates over a run."""

from __future__ import annotations

import math

from torch.optim import Optimizer


def decayed(optimizer: Optimizer, how: str, share: float) -> None:
    """Set every group's rate for a share of the run, from its ``initial_lr``.

    Args:
        optimizer: whose groups have an ``initial_lr``.
        how: cosine, from one to zero; steps, the paper's, to a tenth at 300,000 and 400,000 of 500,000; or none.
        share: of the run, from 0 to 1.
    """
    match how:
        case "cosine":
            factor = (1 + math.cos(math.pi * share)) / 2
        case "steps":
            factor = 0.1 ** ((share >= 0.6) + (share >= 0.8))
        case _:
            factor = 1.0
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
