"""Tables of docs/results.md about the first experiment and the benchmarks, computed from gathered records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from synthgrad_lab.running.jsonl import Row


def bench(records: list[Row]) -> list[dict[str, str]]:
    """A benchmark's rows as they were recorded."""
    rows = [{k: v for k, v in r.items() if k not in ("bench", "environment")} for r in records]
    order = ("network", "case", "stages", "depth", "cell", "units", "T", "method")  # text first
    return [
        {
            k.replace("_", " "): _number(row[k])
            for k in sorted(row, key=lambda k: order.index(k) if k in order else len(order))
        }
        for row in rows
    ]


def _number(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


LEFT = ("data", "method", "task", "cell", "settings", "state", "folder")
"""Columns that are not numbers."""


def plus_minus(mean: float, deviation: float | None) -> str:
    """``1.52 ± 0.04``, or ``1.52`` for a single run."""
    return f"{mean:.2f}" if deviation is None else f"{mean:.2f} ± {deviation:.2f}"


def plain(title: str, lines: Sequence[dict[str, str]]) -> Table:
    """Lines of text by column name for the terminal."""
    drawn = Table(title=Text(title))
    for name in lines[0]:
        keep = name in ("method", "test error %")
        drawn.add_column(name, justify="left" if name in LEFT else "right", no_wrap=keep)
    for line in lines:
        drawn.add_row(*map(Text, line.values()))
    return drawn
