"""The regression of M on the gradients that arrive, and the gradients that senders get from M's predictions."""

from __future__ import annotations

import itertools
import math
import weakref
from typing import Any

import torch
from torch import Tensor, nn

from synthgrad.interface.message import CachedPrediction, GradientModel
from synthgrad.interface.numbers import finite, root_mean_square, waits_for, wide
from synthgrad.interface.target_model import TargetModel
from synthgrad.interface.units import LossUnit, Unit, UnitUpdate, attached_unit

BY_NUMBER: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
"""Each living ``Regression`` by its number: a compiled graph can hold a number, but no object."""
_NUMBERS = itertools.count()


class Regression(nn.Module):
    """A gradient model M with the state of its regression: unit, target copy, counters.

    ``Interface`` adds the verbs that place M in a network, and documents the arguments.
    """

    units: Unit | LossUnit
    skipped: Tensor
    """Number of gradients that taught M nothing, because they, their message or M's answer were not finite."""
    withheld: Tensor
    """Number of messages whose sender got zero, because the message or M's answer was not finite."""
    clamped: Tensor
    """Number of messages whose δ̂ was cut off at the limit of half precision."""

    def __init__(
        self,
        gradient_model: GradientModel,
        scale: float,
        target_every: int,
        unit: float | None,
        unit_factor: float,
        unit_decay: float,
    ):
        super().__init__()
        if not 0 <= scale < math.inf:
            raise ValueError(
                f"scale is {scale}; it weighs the synthetic gradient and must be a number of at least 0"
            )
        if not callable(gradient_model):
            raise TypeError(
                f"a gradient model is callable as M(h, context); {type(gradient_model).__name__} is not"
            )
        attached = attached_unit(gradient_model)
        if attached is not None and unit is not None:
            raise ValueError(f"unit is {unit}, but a critic brings its own; leave out unit")
        self.gradient_model, self.scale = gradient_model, scale
        self.target = TargetModel(gradient_model, target_every) if target_every else None
        self.units = attached or Unit(unit, unit_factor, unit_decay)
        for name in ("skipped", "withheld", "clamped"):
            self.register_buffer(name, torch.tensor(0))
        self._last_error: tuple[float, float, float] | None = None  # root mean squares of the error and δ, the unit
        self._open: tuple[weakref.ref[Tensor], int, Any, Ledger] | None = None
        self._enumerate()

    def _enumerate(self) -> None:
        self.number = next(_NUMBERS)
        BY_NUMBER[self.number] = self

    @property
    def unit(self) -> Tensor:
        """The factor that turns M's predictions into gradients: unit_factor root mean squares of δ, at first 1."""
        return self.units.value.clone()  # later gradients change the buffer itself

    @property
    def regression_loss(self) -> Tensor:
        """‖δ̂ - δ‖² / ‖δ‖² of the last gradient that arrived, a scalar: M = 0 gets 1, a perfect M 0.

        NaN before the first gradient, and after one that was zero or not finite.
        """
        if self._last_error is None:
            return torch.tensor(math.nan)
        error, rms, unit = self._last_error
        return torch.tensor(error * unit / rms if rms > 0 else math.nan).square()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out of copies and pickles what belongs to the step under way."""
        return {**self.__dict__, "_open": None, "_last_error": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Give a copy its own number."""
        super().__setstate__(state)
        self._enumerate()


class Ledger:
    """The gradients that have arrived for one message so far: there may be several, and they add up.

    The regression of M is affine in δ, and so is the mixture that is passed down. The first gradient brings the
    constant part (M's own prediction), every later one only its own share.
    """

    def __init__(self) -> None:
        self.receivers = 1
        self.passed = False
        """Whether the synthetic gradient has been passed down."""
        self.arrivals = 0
        self.total: Tensor | None = None
        """The sum of the gradients, kept only if another one may follow."""
        self.unit_update: UnitUpdate | None = None
        self.unit = 1.0


class Arrival:
    """Everything the backward pass needs to know about a message when its gradient arrives."""

    def __init__(self, regression: Regression, answer: CachedPrediction, ledger: Ledger):
        self.regression, self.ledger = regression, ledger
        self.attached, self.unit, self.good = answer.attached, answer.unit, answer.good
        self.omitted: Tensor | None = None
        """Rows that M must not learn from, shape (batch,), because their gradient is incomplete."""
        self.chunk: Any = None
        """The chunk that begins with the message, if a recurrent interface received it."""


def ledger_for(regression: Regression, h: Tensor, context: Any) -> Ledger:
    """The ledger of a message: all who receive it with the same context before its first gradient share one."""
    version, last = -1 if h.is_inference() else h._version, regression._open
    if last is not None:
        same, written, seen, ledger = last
        if same() is h and written == version and seen is context and not ledger.arrivals:
            ledger.receivers += 1
            return ledger
    ledger = Ledger()
    regression._open = weakref.ref(h), version, context, ledger
    return ledger


def regression_gradient(prediction: Tensor, delta: Tensor, arrival: Arrival) -> Tensor | None:
    """∂/∂prediction of ‖M(h, c) - δ/unit‖², averaged over the batch, or None if δ teaches nothing.

    None and not zero, because an optimizer with momentum or weight decay moves parameters whose gradient is zero.
    """
    error = regression_error(prediction, delta, arrival)
    return None if error is None else error.mul_(2 / max(len(delta), 1)).to(prediction.dtype)


def regression_error(prediction: Tensor, delta: Tensor, arrival: Arrival, update: bool = True) -> Tensor | None:
    """M - δ/unit, after δ has updated the unit; for a later gradient of one message, the change that it makes.

    None if δ, the message or M's prediction is not finite: a GradScaler overflows on purpose while it looks for its
    scale, and such a gradient must not reach M.
    """
    regression, ledger = arrival.regression, arrival.ledger
    if delta.numel() == 0:
        return prediction * 0.0
    delta = delta.to(torch.promote_types(prediction.dtype, torch.float32))
    first, total = ledger.arrivals == 0, delta if ledger.total is None else ledger.total + delta
    rms = root_mean_square(total).item()
    usable = bool(arrival.good) and rms < float("inf")
    error, unit, size = None, 1.0, float("inf")
    if usable:
        if update and not arrival.attached:
            ledger.unit_update = regression.units.update(rms, len(delta), ledger.unit_update)
        unit = float(arrival.unit if arrival.attached else regression.units.for_batch(len(delta))) or 1.0
        error = torch.sub(prediction.to(delta.dtype), total, alpha=1 / unit)
        size = root_mean_square(error.detach()).item()
        usable = size < float("inf")
        if ledger.total is not None:  # subtract what the earlier gradients have taught already
            error = ledger.total / ledger.unit - total / unit
        for each in arrival.attached if not first else ():
            each.anchor_due = False
    if error is None or not usable:
        regression.skipped += 1
        regression._last_error = None
        return None
    ledger.arrivals, ledger.unit = ledger.arrivals + 1, unit
    ledger.total = total if ledger.arrivals < ledger.receivers or _another_may_follow() else None
    regression._last_error = size, rms, unit
    if first and update and regression.target is not None:
        regression.target.count_gradient(regression.gradient_model)
    if arrival.omitted is not None:
        if arrival.omitted.all():
            return None
        error = error.masked_fill(arrival.omitted.view(-1, *[1] * (error.dim() - 1)), 0.0)
    return error


def gradient_for_sender(
    regression: Regression, prediction: Tensor, unit: float | Tensor, good: bool | Tensor, dtype: torch.dtype
) -> Tensor:
    """Compute a sender's gradient: scale·δ̂ in the message's dtype, or zero if it is not finite."""
    found = wide(prediction.detach()) * (unit * regression.scale)
    if not waits_for(found):
        good = found.isfinite().all() & good
        found = torch.where(good, found, 0.0)
        regression.withheld += ~good
    elif not good or not finite(found):
        found = torch.zeros_like(found)
        regression.withheld += 1
    if dtype is torch.float16:
        most = torch.finfo(dtype).max
        regression.clamped += (found.abs() > most).any()
        found = found.clamp(-most, most)
    return found.to(dtype)


_keeps_graph: Any = torch._C._autograd._get_current_graph_task_keep_graph  # pyright: ignore


def _another_may_follow() -> bool:
    """Whether the backward pass under way keeps its graph, so that another one may follow."""
    return torch._C._current_graph_task_id() < 0 or _keeps_graph()
