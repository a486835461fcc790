"""What M is taught by the gradients that arrive for one message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from synthgrad.interface.message import Answer
from synthgrad.interface.numbers import root_mean_square

if TYPE_CHECKING:
    from synthgrad.interface.interface import Interface
    from synthgrad.interface.units import Taken


class Ledger:
    """What has come back for one message so far: several gradients may, and they add up.

    The regression of M is affine in δ, and so is the mixture that is passed down. The first gradient brings the
    constant part (M's own answer), every later one only its own share.
    """

    def __init__(self) -> None:
        self.receivers = 1
        self.passed = False
        """Whether the synthetic gradient has been passed down."""
        self.arrivals = 0
        self.total: Tensor | None = None
        """The sum of the gradients, kept only where another one may follow."""
        self.taken: Taken | None = None
        self.unit = 1.0


class Arrival:
    """Where a message's gradient will arrive, and what is to be made of it."""

    def __init__(self, interface: Interface, answer: Answer, ledger: Ledger):
        self.interface, self.brought, self.unit, self.good = interface, answer.brought, answer.unit, answer.good
        self.ledger = ledger
        self.omitted: Tensor | None = None
        """Rows that M must not learn from, shape (batch,): something is missing in their gradient."""
        self.chunk: Any = None
        """What a recurrent interface notes of the chunk that begins here."""


def taught(prediction: Tensor, delta: Tensor, arrival: Arrival) -> Tensor | None:
    """∂/∂prediction of ‖M(h, c) - δ/unit‖², averaged over the batch, or None where δ teaches nothing.

    None, not zeros: an optimizer with momentum or weight decay moves what has a gradient of zero.
    """
    error = regression_error(prediction, delta, arrival)
    return None if error is None else error.mul_(2 / max(len(delta), 1)).to(prediction.dtype)


def regression_error(prediction: Tensor, delta: Tensor, arrival: Arrival, follow: bool = True) -> Tensor | None:
    """M - δ/unit, after the unit has followed δ; for later gradients of one message what they change in it.

    None if δ, the message or M's answer is not finite: a GradScaler overflows on purpose while it looks for its
    scale, and such a gradient must not reach M.
    """
    interface, ledger = arrival.interface, arrival.ledger
    if delta.numel() == 0:
        return prediction * 0.0
    delta = delta.to(torch.promote_types(prediction.dtype, torch.float32))
    first, total = ledger.arrivals == 0, delta if ledger.total is None else ledger.total + delta
    rms = root_mean_square(total).item()
    usable = bool(arrival.good) and rms < float("inf")
    error, unit, size = None, 1.0, float("inf")
    if usable:
        if follow and not arrival.brought:
            ledger.taken = interface.units.follow(rms, len(delta), ledger.taken)
        unit = float(arrival.unit if arrival.brought else interface.units.of(len(delta))) or 1.0
        error = torch.sub(prediction.to(delta.dtype), total, alpha=1 / unit)
        size = root_mean_square(error.detach()).item()
        usable = size < float("inf")
        if ledger.total is not None:  # what the gradients so far have taught already is taken off
            error = ledger.total / ledger.unit - total / unit
        for each in arrival.brought if not first else ():
            each.anchored = False
    if error is None or not usable:
        interface.skipped += 1
        interface._seen = None
        return None
    ledger.arrivals, ledger.unit = ledger.arrivals + 1, unit
    ledger.total = total if ledger.arrivals < ledger.receivers or _another_may_follow() else None
    interface._seen = (size, unit, rms)
    if first and follow and interface.target is not None:
        interface.target.follow(interface.gradient_model)
    if arrival.omitted is not None:
        if arrival.omitted.all():
            return None
        error = error.masked_fill(arrival.omitted.view(-1, *[1] * (error.dim() - 1)), 0.0)
    return error


_keeps_graph: Any = torch._C._autograd._get_current_graph_task_keep_graph  # pyright: ignore


def _another_may_follow() -> bool:
    """Whether the pass under way keeps its graph."""
    return torch._C._current_graph_task_id() < 0 or _keeps_graph()
