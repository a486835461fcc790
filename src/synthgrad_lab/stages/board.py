"""A live table of all stages on standard error."""

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


class Board:
    """A row per stage, updated while the stages run; without a terminal, a line every ten seconds."""

    def __init__(self, steps: int):
        self.steps = steps
        self.console = Console(file=sys.stderr)
        self.live = Live(console=self.console, refresh_per_second=4)
        self.seen: dict[int, deque[tuple[float, int]]] = {}
        self.printed = time.monotonic()

    def __enter__(self) -> Board:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.live.stop()

    def __call__(self, statuses: Sequence[Status]) -> None:
        """Show the stages' statuses."""
        if self.console.is_terminal:
            self.live.update(self._table(statuses))
        elif time.monotonic() - self.printed > 10:
            self.printed = time.monotonic()
            self.console.print("; ".join(map(_line, statuses)), highlight=False)

    def _speed(self, status: Status) -> float:
        """Steps per second over the last few seconds."""
        times = self.seen.setdefault(status.k, deque(maxlen=60))
        times.append((time.monotonic(), status.counters.steps))
        (then, before), (now, steps) = times[0], times[-1]
        return max(steps - before, 0) / (now - then) if now > then else 0.0

    def _table(self, statuses: Sequence[Status]) -> Table:
        table = Table(*COLUMNS, box=None, header_style="dim")
        for s in statuses:
            c = s.counters
            table.add_row(
                str(s.k),
                f"[{_COLOUR[s.state]}]{s.state}[/]",
                f"{c.clock:,}/{self.steps:,}",
                f"{self._speed(s):.0f}",
                *map(str, (c.queue, c.dropped, c.missed, c.refused, c.nonfinite)),
                *(_number(c.staleness, 1), _number(c.regression_loss, 2)),
                str(s.generation - 1),
            )
        return table


def _line(status: Status) -> str:
    """A stage's state and step, and how many steps, packets and gradients it has lost."""
    c = status.counters
    counts = {"missed": c.missed, "refused": c.refused, "not finite": c.nonfinite}
    lost = "".join(f", {name} {count}" for name, count in counts.items() if count)
    return f"stage {status.k} {status.state}, step {c.clock}{lost}"


def _number(value: float, digits: int) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}f}"
