"""A clock that stands still while nobody looks at it for long."""

from __future__ import annotations

import time


class Awake:
    """Seconds, of which any two looks in a row count at most ``most``.

    A stage that was stopped, or asleep, or deep in a step, has not listened meanwhile; its neighbours' silence in
    that time says nothing about them.

    Args:
        most: what counts of the time between two looks.
    """

    def __init__(self, most: float):
        self.most = most
        self.time, self.looked = 0.0, time.monotonic()

    def __call__(self) -> float:
        """The time."""
        now = time.monotonic()
        self.time += min(now - self.looked, self.most)
        self.looked = now
        return self.time
