"""Adam for the layers and for the gradient models beside them; learning rates over a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.optim import Adam, Optimizer


def adam(parameters: Sequence[Tensor], models: Sequence[Tensor], s: Any) -> Adam:
    """One Adam; the gradient models' parameters are a group of their own, with their own rate and betas.

    Args:
        parameters: parameters of the layers that learn the task.
        models: parameters of the gradient models, if there are any.
        s: a family's settings, of which it reads the groups ``optimizer`` and ``model``.
    """
    groups: list[dict[str, Any]] = [{"params": parameters, "lr": s.optimizer.lr, "initial_lr": s.optimizer.lr}]
    if models:
        rates = {"lr": s.model.lr, "initial_lr": s.model.lr, "betas": (s.model.beta1, s.model.beta2)}
        groups.append({"params": models, **rates})
    return Adam(groups, fused=True)


def set_learning_rates(optimizer: Optimizer, decay: str, share: float) -> None:
    """Set every group's learning rate when a share of the run is done.

    Args:
        optimizer: an optimizer whose groups have an ``initial_lr``.
        decay: ``cosine``, from ``initial_lr`` to zero; ``steps``, the paper's, to a tenth at 300,000 and again at
            400,000 of 500,000 steps; or ``none``.
        share: the share of the run that is done, from 0 to 1.
    """
    match decay:
        case "cosine":
            factor = (1 + math.cos(math.pi * share)) / 2
        case "steps":
            factor = 0.1 ** ((share >= 0.6) + (share >= 0.8))
        case _:
            factor = 1.0
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
