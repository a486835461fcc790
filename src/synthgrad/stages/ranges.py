"""What every setting of a launch may be: one table, and one error for whatever is outside it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, NamedTuple


class Range(NamedTuple):
    """The values that a setting may have."""

    least: float
    most: float
    whole: bool = True
    below: bool = False
    """Whether ``most`` itself is too much."""

    def holds(self, value: Any) -> bool:
        """Whether the value is a number of the right kind in it; NaN is in none."""
        number = not isinstance(value, bool) and isinstance(value, Integral if self.whole else Real)
        return number and self._spans(value)

    def _spans(self, value: Any) -> bool:
        return self.least <= value <= self.most and not (self.below and value == self.most)

    def __str__(self) -> str:
        """As an error says it."""
        most = "" if math.isinf(self.most) else f" and {'below' if self.below else 'at most'} {self.most}"
        return f"at least {self.least}{most}, {'a whole number' if self.whole else 'a number'}"


_MANY, _BYTES = 2**31 - 1, 2**63 - 1  # what ZeroMQ takes as a number of packets, and of bytes
RANGES: Mapping[str, Range] = {
    # Of a launch. A packet's header has 16 bits for the stage; a step is told as a floating-point number.
    "stages": Range(2, 2**16),
    "steps": Range(1, 2**53),
    "seed": Range(-(2**63), 2**64 - 1),
    # Of its policy. Who may wait for ever, or take all the time to start, may; who has no supervisor may not.
    "queue": Range(1, _MANY),
    "silence_timeout": Range(0, math.inf, whole=False),
    "start_within": Range(0, math.inf, whole=False),
    "heartbeat_interval": Range(0, 3600, whole=False),
    "in_flight": Range(1, _MANY),
    "max_staleness": Range(0, _MANY),
    "replay": Range(0, _MANY),
    "checkpoint_every": Range(1, _MANY),
    "max_restarts": Range(0, _MANY),
    "hang_timeout": Range(0.1, math.inf, whole=False),
    "idle_exit_after": Range(0, 1e9, whole=False),
    "threads": Range(1, 1024),
    "limit": Range(1, _BYTES),
    # Of a simulation's faults.
    "lateness": Range(0, _MANY),
    "drop": Range(0, 1, whole=False, below=True),
    "slow": Range(1, _MANY),
    "crashes": Range(0, _BYTES),
    "down": Range(1, _MANY),
}
"""By the setting's name."""


def check(values: Mapping[str, Any], hint: str = "") -> None:
    """Refuse what a setting cannot be.

    Args:
        values: by the settings' names; None is a setting's own "none", and a tuple has several values.
        hint: what the error ends with.

    Raises:
        ValueError: with the setting's name, its value, and its range.
    """
    for name, value in values.items():
        allowed = RANGES.get(name)
        for each in value if isinstance(value, tuple) else (value,):
            if allowed is not None and each is not None and not allowed.holds(each):
                raise ValueError(f"{name}={each!r}: it must be {allowed}{hint}")
