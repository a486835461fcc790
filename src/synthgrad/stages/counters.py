"""How a stage is doing: what came of a turn, and what is counted."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any


class Turn(IntEnum):
    """What came of a turn."""

    STEPPED = 1
    WAITED = 2
    ENDED = 3


@dataclass
class Counters:
    """How a stage is doing, for a person to look at and for records."""

    steps: int = 0
    """Made since the run began; a restart goes back to its checkpoint."""
    clock: int = 0
    """The step of the data that comes next."""
    queue: int = 0
    """Messages that the stage above has not taken in yet."""
    dropped: int = 0
    """Messages that were not sent, since the stage above was out."""
    lost: int = 0
    """Gradients that taught nothing: too old, or of an earlier life."""
    refused: int = 0
    """Packets that were none of this run's, and messages and gradients that this stage could not use."""
    missed: int = 0
    """Steps of the data that it has never made: their messages were dropped, lost or refused, or it was out."""
    nonfinite: int = 0
    """Steps and gradients that taught nothing, since something in them was inf or NaN."""
    replayed: int = 0
    """Steps on messages of the past, since none came."""
    learnt: int = 0
    """Gradients that the gradient model above has learnt from."""
    staleness: float = math.nan
    """Steps between a message and its gradient, a running mean."""
    regression_loss: float = math.nan
    """Of the gradient model above: 1 is what M = 0 gets, 0 is perfect."""
    loss: float = math.nan
    """The task's, a running mean; of the last stage."""


OWN = ("turned", "stepped", "allowed", "ended", "generation")
"""Of its present life: when it made its last turn, its steps, how long the next turn may take."""
NUMBERS = (*(field.name for field in fields(Counters)), *OWN)
"""What a stage tells its supervisor, in this order, as floating-point numbers in shared memory."""


def counters_from(numbers: Any) -> tuple[Counters, dict[str, float]]:
    """What a stage has told, and the numbers besides."""
    values = dict(zip(NUMBERS, numbers, strict=True))
    own = {name: values.pop(name) for name in OWN}
    whole = {f.name for f in fields(Counters) if f.type == "int"}
    return Counters(**{name: int(v) if name in whole else v for name, v in values.items()}), own
