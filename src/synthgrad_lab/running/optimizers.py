"""Adam for what learns the task and for the gradient models beside it; learning rates over a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.optim import Adam, Optimizer


def adam(parameters: Sequence[Tensor], models: Sequence[Tensor], s: Any) -> Adam:
    """One Adam, the gradient models' parameters in a group of their own with their own rate and betas.

    Args:
        parameters: of what learns the task.
        models: of the gradient models, if there are any.
        s: settings: ``lr, model_lr, model_beta1, model_beta2``.
    """
    groups: list[dict[str, Any]] = [{"params": parameters, "lr": s.optimizer.lr, "initial_lr": s.optimizer.lr}]
    if models:
        rates = {"lr": s.model.lr, "initial_lr": s.model.lr, "betas": (s.model.beta1, s.model.beta2)}
        groups.append({"params": models, **rates})
    return Adam(groups, fused=True)


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
