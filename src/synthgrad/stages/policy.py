"""The settings of a launch: how long a stage waits, what it keeps for a restart, and the range of each setting."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Policy:
    """How long a stage waits for its neighbours, and what is kept for a restart.

    Times are in seconds (in a simulation, ticks).
    """

    queue: int = 8
    """Messages that may be on their way to the stage above. When they are that many, a stage waits while the stage
    above is alive, and drops its oldest message once that stage is dead or hung."""
    silence_timeout: float = 1.0
    """Seconds of silence after which a neighbour counts as hung (at least 5 of the usual intervals between its
    packets). A dead neighbour is noticed at once."""
    start_within: float = 120.0
    """Seconds that a stage may take to send its first packet, and for its first step."""
    heartbeat_interval: float = 0.02
    """Seconds between two heartbeats of a stage that has nothing to do."""
    in_flight: int = 64
    """Messages that a stage keeps until their gradients come; it forgets the oldest first."""
    max_staleness: int | None = None
    """A gradient that is more steps late than this teaches nothing; None sets no limit."""
    replay: int = 0
    """Messages that a stage keeps, to train on again while the stage below is down; with 0 it waits."""
    lockstep: bool = False
    """Wait for each gradient before the next step. For comparisons: every way of running then gives the same
    numbers."""
    checkpoint_every: int = 100
    """Steps between a stage's checkpoints; a crash loses at most this many."""
    max_restarts: int = 3
    """How often in a row a stage is restarted without getting further than ever before."""
    hang_timeout: float = 10.0
    """Seconds without a turn after which a stage counts as hung: it is killed and restarted. Its first step may
    take ``start_within``, a later one five times as long as the longest before it."""
    idle_exit_after: float = 30.0
    """Seconds without a step after which a stage whose supervisor is gone stops."""
    threads: int = 1
    """Torch threads of each stage's process."""
    limit: int = 1 << 30
    """The most bytes of one tensor that a stage accepts."""

    def __post_init__(self) -> None:
        values = vars(self)
        check_ranges(values)
        if none := [name for name, value in values.items() if value is None and name != "max_staleness"]:
            raise ValueError(f"{none[0]}=None: it must be a number")
        if not isinstance(self.lockstep, bool):
            raise ValueError(f"lockstep={self.lockstep!r}: it must be True or False")


class Range(NamedTuple):
    """The values that a setting may have."""

    least: float
    most: float
    whole: bool = True
    below: bool = False
    """Whether ``most`` itself is excluded."""

    def holds(self, value: Any) -> bool:
        """Whether the value is a number of the right kind within the range; NaN is in no range."""
        number = not isinstance(value, bool) and isinstance(value, Integral if self.whole else Real)
        return number and self._spans(value)

    def _spans(self, value: Any) -> bool:
        return self.least <= value <= self.most and not (self.below and value == self.most)

    def __str__(self) -> str:
        """The range in words, for an error."""
        most = "" if math.isinf(self.most) else f" and {'below' if self.below else 'at most'} {self.most}"
        return f"at least {self.least}{most}, {'a whole number' if self.whole else 'a number'}"


_MANY, _BYTES = 2**31 - 1, 2**63 - 1  # the largest number of packets, and of bytes, that ZeroMQ accepts
RANGES: Mapping[str, Range] = {
    # A launch. A packet's header has 16 bits for the stage; a step is reported as a floating-point number.
    "stages": Range(2, 2**16),
    "steps": Range(1, 2**53),
    "seed": Range(-(2**63), 2**64 - 1),
    # Its policy. A timeout may be infinite, except for stages without a supervisor: they would never stop.
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
    # The faults of a simulation.
    "lateness": Range(0, _MANY),
    "drop": Range(0, 1, whole=False, below=True),
    "slow": Range(1, _MANY),
    "crashes": Range(0, _BYTES),
    "down": Range(1, _MANY),
}
"""The range of each setting, by its name."""


def check_ranges(values: Mapping[str, Any], hint: str = "") -> None:
    """Check that each setting is in its range.

    Args:
        values: by the settings' names; None is not checked, and of a tuple each element is.
        hint: the end of the error's text.

    Raises:
        ValueError: with the setting's name, its value, and its range.
    """
    for name, value in values.items():
        allowed = RANGES.get(name)
        for each in value if isinstance(value, tuple) else (value,):
            if allowed is not None and each is not None and not allowed.holds(each):
                raise ValueError(f"{name}={each!r}: it must be {allowed}{hint}")
