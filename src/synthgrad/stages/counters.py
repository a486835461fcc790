"""The numbers that a stage reports: its counters, and the state of its process."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, NamedTuple


@dataclass
class Counters:
    """How a stage is doing, for the live table and for records."""

    steps: int = 0
    """Steps made since the run began; a restart goes back to the number in its checkpoint."""
    clock: int = 0
    """The next step of the data."""
    queue: int = 0
    """Messages that the stage above has not received yet."""
    dropped: int = 0
    """Messages that were never sent: the stage above was down, or had no room and this stage does not wait."""
    lost: int = 0
    """Gradients that taught nothing: too old, overtaken by a newer one, or without a known message."""
    refused: int = 0
    """Packets that did not belong to this run, and messages and gradients that this stage could not use."""
    missed: int = 0
    """Steps of the data that it never made: their messages were dropped, lost or refused, or it was down."""
    nonfinite: int = 0
    """Steps and gradients that taught nothing because something in them was inf or NaN."""
    replayed: int = 0
    """Steps on earlier messages, made while the stage below was down."""
    learnt: int = 0
    """Gradients that the gradient model above has learnt from."""
    staleness: float = math.nan
    """Steps between a message and its gradient, a running mean."""
    regression_loss: float = math.nan
    """The gradient model's last error: 1 is what M = 0 gets, 0 is perfect."""
    loss: float = math.nan
    """In the last stage, the task's loss, a running mean."""


class ProcessState(NamedTuple):
    """The state of a stage's current process, for its supervisor."""

    turned: float
    """When it made its last turn, on its monotonic clock."""
    stepped: float
    """Steps that it has made."""
    allowed: float
    """Seconds that its next turn may take before it counts as hung."""
    ended: float
    """Whether it has made all steps and everything that it sent has arrived."""
    generation: float
    """How often the stage had been started when this process began."""


REPORT_FIELDS = (*(field.name for field in fields(Counters)), *ProcessState._fields)
"""The names of the floating-point numbers that a stage reports to its supervisor, in their order."""


def parse_report(numbers: Any) -> tuple[Counters, ProcessState]:
    """The counters and the process' state in a report, a sequence of the ``REPORT_FIELDS``."""
    values: dict[str, Any] = dict(zip(REPORT_FIELDS, numbers, strict=True))
    process = ProcessState(**{name: values.pop(name) for name in ProcessState._fields})
    whole = {f.name for f in fields(Counters) if f.type == "int"}
    return Counters(**{name: int(v) if name in whole else v for name, v in values.items()}), process


def running_mean(mean: float, value: float, count: int) -> float:
    """The running mean after one more value: of all values at first, later of some hundred."""
    return value if math.isnan(mean) else mean + (value - mean) / min(count, 100)
