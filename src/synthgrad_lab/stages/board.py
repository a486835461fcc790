"""How every stage is doing, live on standard error."""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.table import Table

from synthgrad.stages import Status

COLUMNS = (
    *("stage", "state", "step", "steps/s", "queue", "dropped", "missed", "refused", "not finite"),
    *("stale by", "M's loss", "restarts"),
)
_COLOUR = {"running": "green", "starting": "yellow", "down": "red", "ended": "dim"}
_PLAIN = 10.0  # seconds between two lines where there is no terminal


class Board:
    """A row per stage, drawn anew while the stages run; call it with their statuses.

    Args:
        steps: of the run.
    """

    def __init__(self, steps: int):
        self.steps = steps
        self.console = Console(file=sys.stderr)
        self.live = Live(console=self.console, refresh_per_second=4)
        self.seen: dict[int, deque[tuple[float, int]]] = {}
        self.counters = time.monotonic()

    def __enter__(self) -> Board:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.live.stop()

    def __call__(self, statuses: Sequence[Status]) -> None:
        """Show how they are doing."""
        speeds = [self._speed(status) for status in statuses]
        if self.console.is_terminal:
            self.live.update(self._table(statuses, speeds))
        elif time.monotonic() - self.counters > _PLAIN:
            self.counters = time.monotonic()
            told = "; ".join(f"stage {s.k} {s.state}, step {s.counters.clock}{_lost(s)}" for s in statuses)
            self.console.print(told, highlight=False)

    def _speed(self, status: Status) -> float:
        """Steps per second over the last few seconds."""
        times = self.seen.setdefault(status.k, deque(maxlen=60))
        times.append((time.monotonic(), status.counters.steps))
        (then, before), (now, steps) = times[0], times[-1]
        return max(steps - before, 0) / (now - then) if now > then else 0.0

    def _table(self, statuses: Sequence[Status], speeds: Sequence[float]) -> Table:
        table = Table(*COLUMNS, box=None, header_style="dim")
        for s, speed in zip(statuses, speeds, strict=True):
            told, colour = s.counters, _COLOUR[s.state]
            table.add_row(
                str(s.k),
                f"[{colour}]{s.state}[/]",
                f"{told.clock:,}/{self.steps:,}",
                f"{speed:.0f}",
                str(told.queue),
                str(told.dropped),
                str(told.missed),
                str(told.refused),
                str(told.nonfinite),
                _number(told.staleness, "{:.1f}"),
                _number(told.regression_loss, "{:.2f}"),
                str(s.generation - 1),
            )
        return table


def _lost(status: Status) -> str:
    """What has been lost, where anything has."""
    told = status.counters
    counts = {"missed": told.missed, "refused": told.refused, "not finite": told.nonfinite}
    return "".join(f", {name} {count}" for name, count in counts.items() if count)


def _number(value: float, form: str) -> str:
    return "" if math.isnan(value) else form.format(value)
