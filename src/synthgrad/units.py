"""The unit in which a gradient model predicts: it must not care how a loss is scaled."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

N: TypeAlias = Any  # a number, or a tensor of one element


def root_mean_square(x: Tensor) -> Tensor:
    """Over all elements, a scalar; 0 where there are none."""
    return torch.linalg.vector_norm(x) / math.sqrt(max(x.numel(), 1))


class Unit(nn.Module):
    """Follows the size of the gradients that arrive, as an exponential mean of their mean square.

    A mean-reduced loss makes gradients 1/batch small, a GradScaler makes them 65,536 times larger; a model that
    predicts δ/unit sees neither. The factor says how the unit relates to the root mean square: at 32, targets
    are of size 1/32, which Adam at a usual rate can reach within a few steps, as M must to keep up with the
    parts (docs/log.md has the measurements).

    Args:
        fixed: a unit that never moves; None follows the gradient.
        factor: the unit in root mean squares.
        decay: how much of the mean square is kept per gradient.
    """

    root: Tensor
    weight: Tensor
    value: Tensor
    """The unit, a scalar; 1 before the first gradient."""

    def __init__(self, fixed: float | None = None, factor: float = 32.0, decay: float = 0.99):
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"unit_decay is {decay}; it must be at least 0 and below 1")
        for name, value in (("unit", fixed), ("unit_factor", factor)):
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} is {value}; it must be a positive number")
        self.fixed, self.factor, self.decay = fixed, factor, decay
        # The root, not the square: half precision cannot hold the square of a gradient of 1e-4.
        self.register_buffer("root", torch.tensor(0.0))
        self.register_buffer("weight", torch.tensor(0.0))  # of what has been seen so far, as Adam's correction
        self.register_buffer("value", torch.tensor(1.0 if fixed is None else fixed))

    @property
    def known(self) -> Tensor:
        """The unit, or 0 while no gradient has arrived: nobody can then say how large one is."""
        return self.value if self.fixed is not None else self.value * (self.weight > 0)

    def follow(self, rms: Tensor) -> None:
        """Take in one gradient's root mean square, a scalar.

        What is not finite is left out, and so is zero: a gradient of nothing but zeros (the neighbour's own M has
        not moved yet) says nothing of the unit.
        """
        if self.fixed is not None:
            return
        state = (self.root, self.weight, self.value)
        # Numbers are ten times faster than tensors of one element; a GPU must not be waited for to get them.
        before = [t.item() if rms.is_cpu else t.float() for t in (rms.nan_to_num(0.0, 0.0), *state)]
        for buffer, after in zip(state, _followed(self.decay, self.factor, *before), strict=True):
            buffer.fill_(after)


class ToldUnit(Unit):
    """A unit that follows only what it is told.

    A bootstrapped gradient, which holds M's own answer, must not decide in which unit M answers: the two would
    drive each other up.
    """

    def follow(self, rms: Tensor) -> None:
        """Nothing; see ``tell``."""

    def tell(self, rms: Tensor) -> None:
        """Take in the root mean square of a gradient that comes from a loss alone."""
        super().follow(rms)


class LossUnit(nn.Module):
    """The unit of M's answers where M knows it: the weight of an example's loss in the task's."""

    value: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("value", torch.tensor(0.0))
        self.fixed = "by the loss"

    @property
    def known(self) -> Tensor:
        """The unit; M tells it with each answer."""
        return self.value

    def follow(self, rms: Tensor) -> None:
        """Nothing: the gradients that arrive do not decide it."""


def _followed(decay: float, factor: float, rms: N, root: N, weight: N, value: N) -> tuple[N, N, N]:
    """Root, weight and value after one more gradient; on numbers and on tensors alike."""
    seen = (rms > 0) * (1 - decay)
    root = (root**2 * (1 - seen) + rms**2 * seen) ** 0.5
    weight = weight + (1 - weight) * seen
    none = weight == 0
    return root, weight, root / (weight + none) ** 0.5 * factor + value * none
