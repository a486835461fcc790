"""Tables of text for the terminal, and the rows of benchmarks."""

from collections.abc import Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from synthgrad_lab.running.jsonl import Row

Lines = list[dict[str, str]]
"""A table's rows: texts by column name."""
LEFT = ("data", "method", "task", "cell", "settings", "state", "folder")
"""Columns that are not numbers."""


def bench(records: list[Row]) -> Lines:
    """A benchmark's rows as they were recorded; what was measured comes before its numbers."""
    first = ("network", "case", "stages", "depth", "cell", "units", "T", "method")
    return [
        {
            name.replace("_", " "): f"{row[name]:.2f}" if isinstance(row[name], float) else str(row[name])
            for name in [*(n for n in first if n in row), *(n for n in row if n not in first)]
            if name not in ("bench", "environment")
        }
        for row in records
    ]


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
