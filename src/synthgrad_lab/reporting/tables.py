"""Tables of text for the terminal, and the rows of benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from synthgrad_lab.running.jsonl import Row

LEFT = ("data", "method", "task", "cell", "settings", "state", "folder")
"""Columns that are not numbers."""


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


def terminal(title: str, lines: Sequence[dict[str, str]], caption: str = "") -> Table:
    """Lines of text by column name, for the terminal."""
    drawn = Table(title=Text(title), caption=caption or None)
    for name in lines[0] if lines else ():
        keep = name in ("method", "test error %")
        drawn.add_column(name, justify="left" if name in LEFT else "right", no_wrap=keep, overflow="fold")
    for line in lines:
        drawn.add_row(*map(Text, line.values()))
    return drawn


def show(drawn: Table) -> None:
    """Print a table whole: in a narrow terminal its lines run over the edge, so that no word is lost."""
    console = Console()
    width = Measurement.get(console, console.options.update(width=10_000), drawn)
    # A file or a pipe has no edge.
    console.width = max(console.width, width.minimum) if console.is_terminal else width.maximum
    console.print(drawn)
