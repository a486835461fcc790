"""The unit in which a gradient model predicts: it must not care how a loss is scaled, nor how large a batch is."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from synthgrad.interface.numbers import root_mean_square, waits_for

YOUNG, ONE_MAY, FIRST_MAY = 10, 10.0, 32.0
"""A gradient counts for at most ONE_MAY times the size so far; of the first YOUNG ones, for FIRST_MAY times."""
FITS = 0.5
"""The squared logarithm up to which a prediction of a gradient's size is good: a factor of two."""
DOUBT = 0.1
"""Evidence above which a loss is taken for a sum over the batch; by default torch's losses are means."""


class Followed(NamedTuple):
    """What a unit has seen, by its place in the buffer ``seen``."""

    as_mean: float
    """Running root mean square of n·δ over batches of n: an example's gradient if the loss is a mean."""
    as_sum: float
    """The same of δ itself: an example's gradient if the loss is a sum."""
    gradients: float
    """How many counted."""
    evidence: float
    """How much better ``as_sum`` has predicted the gradients' sizes than ``as_mean``: a running sum of errors."""
    size: float
    """Examples in the last one's batch."""
    base: float
    """The unit for a batch of one."""
    is_sum: float
    """Whether the loss is taken for a sum (1), so that the unit is the same for every batch, or for a mean (0)."""


class Taken(NamedTuple):
    """What one gradient has made of a unit."""

    start: Followed
    after: Followed


class Statistics(nn.Module):
    """A module whose own buffers stay in single precision at least, whatever it is cast to.

    A running mean in half precision stands still, or reaches zero.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Statistics:
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, buffer in self._buffers.items():
            if buffer is not None and buffer.is_floating_point() and buffer.dtype.itemsize < 4:
                self._buffers[name] = before[name].to(buffer.device)  # pyright: ignore[reportOptionalMemberAccess]
        return self


class Unit(Statistics):
    """Follows the size of the gradients that arrive, as an exponential mean of their mean square.

    A mean-reduced loss makes gradients 1/batch small, a GradScaler makes them 65,536 times larger; a model that
    predicts δ/unit sees neither. The unit is kept per example: a short last batch has larger gradients under a mean
    loss and the same ones under a sum, and which of the two it is shows as soon as the batch's size varies. The
    factor says how the unit relates to the root mean square: at 32, targets are of size 1/32, which Adam at a
    usual rate can reach within a few steps, as M must to keep up with the parts (docs/log.md has the measurements).

    Args:
        fixed: a unit that never moves; None follows the gradient.
        factor: the unit in root mean squares.
        decay: how much of the mean square is kept per gradient.
    """

    seen: Tensor
    """The numbers of a ``Followed``."""

    def __init__(self, fixed: float | None = None, factor: float = 32.0, decay: float = 0.99):
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"unit_decay is {decay}; it must be at least 0 and below 1")
        for name, value in (("unit", fixed), ("unit_factor", factor)):
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} is {value}; it must be a positive number")
        self.fixed, self.factor, self.decay = fixed, factor, decay
        self.told = False
        """Whether only ``tell`` moves the unit. A bootstrapped gradient, which holds M's own answer, must not
        decide in which unit M answers: the two would drive each other up."""
        self.register_buffer("seen", torch.tensor(Followed(0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0)))

    @property
    def value(self) -> Tensor:
        """The unit, a scalar, for batches as large as the last one; 1 before the first gradient."""
        known = self.known
        return torch.where(known > 0, known, 1.0)

    @property
    def known(self) -> Tensor:
        """The same, but 0 before the first gradient: it can't be said yet how large one is."""
        return self.seen.new_tensor(self.of(int(self.seen[4].item())))

    @property
    def begun(self) -> bool:
        """Whether a gradient has arrived, or none is needed."""
        return self.fixed is not None or self.seen[2].item() > 0

    @property
    def weight(self) -> Tensor:
        """Of what has been seen so far in the running mean, from 0 to 1: Adam's correction."""
        return 1 - self.decay ** self.seen[2]

    def of(self, size: int) -> float | Tensor:
        """The unit for a batch of this size, 0 before the first gradient; a tensor where a device had to wait."""
        if self.fixed is not None:
            return self.fixed
        size = max(size, 1)
        if waits_for(self.seen):
            seen = Followed(*self.seen.tolist())
            return seen.base if seen.is_sum else seen.base / size
        return torch.where(self.seen[6] > 0, self.seen[5], self.seen[5] / size)

    def follow(self, rms: Tensor | float, size: int = 1, before: Taken | None = None) -> Taken | None:
        """Take in one gradient's root mean square, unless the unit only moves when it is told.

        A size that is not finite is left out, and so is zero: a gradient of nothing but zeros (the neighbour's
        own M has not moved yet) says nothing of the unit.

        Args:
            rms: over all elements of the gradient.
            size: examples in its batch.
            before: what ``follow`` returned for an earlier part of the same gradient: this one takes its place,
                unless another gradient has come since.

        Returns:
            What to give back as ``before`` if more of the gradient comes.
        """
        return None if self.told else self.tell(rms, size, before)

    def tell(self, rms: Tensor | float, size: int = 1, before: Taken | None = None) -> Taken | None:
        """Take in the root mean square of a gradient that comes from a loss alone; see ``follow``."""
        if self.fixed is not None:
            return None
        now, rms = Followed(*self.seen.tolist()), float(rms)
        if before is not None and now != before.after:
            return before
        start = now if before is None else before.start
        after = self._after(start, rms, max(size, 1)) if 0 < rms < math.inf else start
        with torch.no_grad():
            self.seen.copy_(self.seen.new_tensor(after).clamp(max=torch.finfo(self.seen.dtype).max))
        return Taken(start, Followed(*self.seen.tolist()))

    def _after(self, seen: Followed, rms: float, size: int) -> Followed:
        corrected, young = math.sqrt(1 - self.decay**seen.gradients), seen.gradients < YOUNG
        roots, errors = [], []
        for root, x in zip(seen[:2], (rms * size, rms), strict=True):
            if root > 0:
                if young:  # the first one may have been the outlier
                    root = min(root, FIRST_MAY * x * corrected)
                x = min(x, (FIRST_MAY if young else ONE_MAY) * root / corrected)
                errors.append(math.log(x * corrected / root) ** 2)
            roots.append(math.hypot(math.sqrt(self.decay) * root, math.sqrt(1 - self.decay) * x))
        after = seen._replace(as_mean=roots[0], as_sum=roots[1], gradients=seen.gradients + 1, size=size)
        return self._with_base(after._replace(evidence=self._evidence(seen, size, errors)))

    def _evidence(self, seen: Followed, size: int, errors: list[float]) -> float:
        """How well a mean and a sum predict a gradient of another batch size; nothing new where neither does."""
        if len(errors) < 2 or size == seen.size or min(errors) > FITS:
            return seen.evidence
        better = max(-1.0, min(1.0, errors[0] - errors[1]))
        return 0.9 * seen.evidence + better * min(1.0, size / 8)

    def _with_base(self, seen: Followed) -> Followed:
        is_sum = seen.evidence > DOUBT
        root = seen.as_sum if is_sum else seen.as_mean
        return seen._replace(
            base=self.factor * root / math.sqrt(1 - self.decay**seen.gradients), is_sum=float(is_sum)
        )

    def _load_from_state_dict(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, state_dict: dict[str, Any], prefix: str, *others: Any
    ) -> None:
        """A fixed unit stays what it was set to, whatever was saved."""
        if self.fixed is not None:
            state_dict = {**state_dict, f"{prefix}seen": self.seen}
        super()._load_from_state_dict(state_dict, prefix, *others)


class LossUnit(nn.Module):
    """The unit of a model that brings one along with each answer; here is that of its last answer, to look at."""

    fixed = "by the loss"

    def __init__(self) -> None:
        super().__init__()
        self.value = torch.tensor(0.0)

    def of(self, size: int) -> float:
        """The unit of the last answer."""
        return self.value.item()

    def tell(self, rms: Tensor | float, size: int = 1, before: Taken | None = None) -> None:
        """Nothing: the gradients that arrive do not decide it."""

    follow = tell


__all__ = ["LossUnit", "Unit", "root_mean_square"]
