"""The unit in which a gradient model predicts: it takes out the scale of the loss and the size of the batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from synthgrad.interface.numbers import waits_for

EARLY, GROWTH, EARLY_GROWTH = 10, 10.0, 32.0
"""A gradient counts for at most GROWTH times the size so far; the first EARLY ones for EARLY_GROWTH times."""
GOOD_FIT = 0.5
"""The squared logarithmic error up to which a gradient's size counts as well predicted: a factor of two."""
SUM_THRESHOLD = 0.1
"""Evidence above which the loss is taken for a sum over the batch; the prior is a mean, torch's default."""


class UnitState(NamedTuple):
    """The numbers of a ``Unit``, in the order of its buffer ``seen``."""

    as_mean: float
    """Running root mean square of n·δ over batches of n: one example's gradient if the loss is a mean."""
    as_sum: float
    """Running root mean square of δ itself: one example's gradient if the loss is a sum."""
    gradients: float
    """Number of gradients counted."""
    evidence: float
    """How much better ``as_sum`` has predicted the gradients' sizes than ``as_mean``: a running sum of errors."""
    size: float
    """Examples in the last gradient's batch."""
    base: float
    """The unit for a batch of one."""
    is_sum: float
    """1 if the loss is taken for a sum, so that the unit is the same for every batch; 0 for a mean."""


class UnitUpdate(NamedTuple):
    """The change that one gradient has made to a unit."""

    before: UnitState
    after: UnitState


class Statistics(nn.Module):
    """A module whose own buffers stay in single precision at least, whatever dtype it is cast to.

    In half precision a running mean would stop moving, or reach zero.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Statistics:
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, buffer in self._buffers.items():
            if buffer is not None and buffer.is_floating_point() and buffer.dtype.itemsize < 4:
                self._buffers[name] = before[name].to(buffer.device)  # pyright: ignore[reportOptionalMemberAccess]
        return self


class Unit(Statistics):
    """Measures the size of the arriving gradients, as an exponential mean of their mean square.

    A mean-reduced loss makes gradients 1/batch small, a GradScaler makes them 65,536 times larger; a model that
    predicts δ/unit sees neither. The unit is kept per example: a short last batch has larger gradients under a mean
    loss and the same ones under a sum. The unit finds out which of the two it is once batch sizes vary.

    At a factor of 32, M's targets are of size 1/32. Adam at a usual rate reaches them within a few steps, and so M
    keeps up with the parts (docs/log.md has the measurements).

    Args:
        fixed: a unit that never moves; None measures the gradients.
        factor: the unit in root mean squares of the gradient.
        decay: the share of the mean square that each gradient keeps.
    """

    seen: Tensor
    """The numbers of a ``UnitState``."""

    def __init__(self, fixed: float | None = None, factor: float = 32.0, decay: float = 0.99):
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"unit_decay is {decay}; it must be at least 0 and below 1")
        for name, value in (("unit", fixed), ("unit_factor", factor)):
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} is {value}; it must be a positive number")
        self.fixed, self.factor, self.decay = fixed, factor, decay
        self.external = False
        """Whether only ``observe`` moves the unit, not ``update``. A bootstrapped gradient contains M's own
        prediction, so it must not set the unit of M's predictions: the two would drive each other up."""
        self.register_buffer("seen", torch.tensor(UnitState(0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0)))

    @property
    def value(self) -> Tensor:
        """The unit, a scalar, for batches as large as the last one; 1 before the first gradient."""
        value = self.value_or_zero
        return torch.where(value > 0, value, 1.0)

    @property
    def value_or_zero(self) -> Tensor:
        """The unit, a scalar, for batches as large as the last one; 0 before the first gradient."""
        return self.seen.new_tensor(self.for_batch(int(self.seen[4].item())))

    @property
    def ready(self) -> bool:
        """Whether the unit is known: it is fixed, or a gradient has arrived."""
        return self.fixed is not None or self.seen[2].item() > 0

    def for_batch(self, size: int) -> float | Tensor:
        """The unit for a batch of this size, 0 before the first gradient; a tensor on an accelerator."""
        if self.fixed is not None:
            return self.fixed
        size = max(size, 1)
        if waits_for(self.seen):
            seen = UnitState(*self.seen.tolist())
            return seen.base if seen.is_sum else seen.base / size
        return torch.where(self.seen[6] > 0, self.seen[5], self.seen[5] / size)

    def update(self, rms: Tensor | float, size: int = 1, last: UnitUpdate | None = None) -> UnitUpdate | None:
        """Count one gradient that has arrived, by its root mean square; does nothing if the unit is ``external``.

        Sizes that are not finite are left out, and so is zero: a gradient of zeros only (from a neighbour whose own
        M has not moved yet) says nothing about the unit.

        Args:
            rms: root mean square over all elements of the gradient.
            size: examples in its batch.
            last: the result of ``update`` for an earlier part of the same gradient. The new ``rms`` replaces that
                part's, unless another gradient has come since.

        Returns:
            The value for ``last``, if more of the same gradient follows.
        """
        return None if self.external else self.observe(rms, size, last)

    def observe(self, rms: Tensor | float, size: int = 1, last: UnitUpdate | None = None) -> UnitUpdate | None:
        """Count a gradient even if the unit is ``external``; arguments as in ``update``."""
        if self.fixed is not None:
            return None
        now, rms = UnitState(*self.seen.tolist()), float(rms)
        if last is not None and now != last.after:
            return last
        before = now if last is None else last.before
        after = self._after(before, rms, max(size, 1)) if 0 < rms < math.inf else before
        with torch.no_grad():
            self.seen.copy_(self.seen.new_tensor(after).clamp(max=torch.finfo(self.seen.dtype).max))
        return UnitUpdate(before, UnitState(*self.seen.tolist()))

    def _after(self, seen: UnitState, rms: float, size: int) -> UnitState:
        corrected, early = math.sqrt(1 - self.decay**seen.gradients), seen.gradients < EARLY
        roots, errors = [], []
        for root, x in zip(seen[:2], (rms * size, rms), strict=True):
            if root > 0:
                if early:  # the first one may have been the outlier
                    root = min(root, EARLY_GROWTH * x * corrected)
                x = min(x, (EARLY_GROWTH if early else GROWTH) * root / corrected)
                errors.append(math.log(x * corrected / root) ** 2)
            roots.append(math.hypot(math.sqrt(self.decay) * root, math.sqrt(1 - self.decay) * x))
        after = seen._replace(as_mean=roots[0], as_sum=roots[1], gradients=seen.gradients + 1, size=size)
        return self._with_base(after._replace(evidence=self._evidence(seen, size, errors)))

    def _evidence(self, seen: UnitState, size: int, errors: list[float]) -> float:
        """Compare how well a mean and a sum predict a batch of another size; unchanged if neither predicts it."""
        if len(errors) < 2 or size == seen.size or min(errors) > GOOD_FIT:
            return seen.evidence
        better = max(-1.0, min(1.0, errors[0] - errors[1]))
        return 0.9 * seen.evidence + better * min(1.0, size / 8)

    def _with_base(self, seen: UnitState) -> UnitState:
        is_sum = seen.evidence > SUM_THRESHOLD
        root = seen.as_sum if is_sum else seen.as_mean
        return seen._replace(
            base=self.factor * root / math.sqrt(1 - self.decay**seen.gradients), is_sum=float(is_sum)
        )

    def _load_from_state_dict(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, state_dict: dict[str, Any], prefix: str, *others: Any
    ) -> None:
        """Load the state; a fixed unit keeps its value, whatever was saved."""
        if self.fixed is not None:
            state_dict = {**state_dict, f"{prefix}seen": self.seen}
        super()._load_from_state_dict(state_dict, prefix, *others)


class LossUnit(nn.Module):
    """The unit of a model that attaches one to each prediction (a critic); its value is that of the last one."""

    fixed = "by the loss"

    def __init__(self) -> None:
        super().__init__()
        self.value = torch.tensor(0.0)

    def for_batch(self, size: int) -> float:
        """The unit of the last prediction."""
        return self.value.item()

    def update(self, rms: Tensor | float, size: int = 1, last: UnitUpdate | None = None) -> None:
        """Do nothing: the arriving gradients do not set this unit."""


def attached_unit(model: Any) -> LossUnit | None:
    """Find the unit of a model that attaches its own, also inside a wrapper; None if there is none."""
    modules = model.modules() if isinstance(model, nn.Module) else ()
    found = (getattr(module, "units", None) for module in modules)
    return next((units for units in found if isinstance(units, LossUnit)), None)
