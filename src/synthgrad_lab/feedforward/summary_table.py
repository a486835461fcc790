"""The table of a report: its cells as text, and drawn for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from synthgrad_lab.feedforward import paper
from synthgrad_lab.feedforward.summary import shown
from synthgrad_lab.reporting.tables import plain, plus_minus

Cost = dict[str, float] | None
"""Seconds per step over Bprop's, by method (or its shown name), measured with the methods in turn on a machine that
does nothing else; methods that are not in it keep the ratio of their runs' own times."""

COMMON = {"data": "{}", "layers": "{} layers", "width": "width {}", "steps": "{} steps", "seeds": "{} seeds"}
"""Columns that are said once, above the table, where all rows agree."""


def cells(rows: Sequence[dict[str, Any]], cost: Cost = None) -> list[dict[str, str]]:
    """Each row as text by column name, without the columns in which all rows agree.

    Args:
        rows: from ``summary.rows``.
        cost: see ``Cost``.
    """
    measured = {shown(method): value for method, value in (cost or {}).items()}
    agreed = common(rows)

    def text(row: dict[str, Any]) -> dict[str, str]:
        relative = measured.get(shown(row["method"]), row["cost"])
        first = {**row, "method": shown(row["method"])}
        return {
            **{name: str(first[name]) for name in ("data", "layers", "width", "method") if name not in agreed},
            "test error %": plus_minus(row["test_error"], row["test_deviation"]),
            f"paper ({paper.ITERATIONS // 1000}k it.)": "" if row["paper"] is None else f"{row['paper']:.1f}",
            "validation error %": plus_minus(row["validation_error"], row["validation_deviation"]),
            **{name: str(first[name]) for name in ("steps", "seeds") if name not in agreed},
            **({"settings": row["settings"]} if any(each["settings"] for each in rows) else {}),
            "updates per layer": updates(row["updates_per_layer"]),
            "s/step × Bprop": "" if relative is None else f"{relative:.2f}",
        }

    return [text(row) for row in rows]


def common(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """What all rows agree in, in words, by column name."""
    agreed = {name: found.pop() for name in COMMON if len(found := {row[name] for row in rows}) == 1}
    words = {name: COMMON[name].format(value) for name, value in agreed.items()}
    return {**words, "seeds": "1 seed"} if agreed.get("seeds") == 1 else words


def heading(rows: Sequence[dict[str, Any]]) -> str:
    """The line above the table: what all rows agree in, and what ± is."""
    parts = list(common(rows).values())
    if any(row["test_deviation"] is not None for row in rows):
        parts.append("mean ± standard deviation over the seeds")
    return ", ".join(parts) if rows else "no run has finished yet"


def updates(counts: Sequence[int]) -> str:
    """Updates per layer, layer 1 first; one number if all layers had the same."""
    return str(counts[0]) if len(set(counts)) == 1 else " ".join(map(str, counts))


def table(rows: Sequence[dict[str, Any]], cost: Cost = None) -> Table:
    """The rows for the terminal, the validation error left out.

    Args:
        rows: from ``summary.rows``.
        cost: see ``Cost``.

    Returns:
        A table; its title says what all rows agree in, its caption where the times come from.
    """
    if not rows:
        return Table(heading(rows))
    lines = [
        {name: text for name, text in line.items() if name != "validation error %"} for line in cells(rows, cost)
    ]
    drawn = plain(heading(rows), lines)
    times = "measured with the methods in turn" if cost else "from the runs themselves, whatever ran beside them"
    drawn.caption = f"s/step: {times}"
    return drawn
