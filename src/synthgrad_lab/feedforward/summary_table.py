"""The table of a report: its texts, and the lines above and below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from synthgrad_lab.feedforward import paper
from synthgrad_lab.feedforward.summary import label
from synthgrad_lab.reporting.statistics import plus_minus

Cost = Mapping[str, float] | None
"""Seconds per step over Bprop's, by method or its label, measured with the methods in turn; methods that are not in it
keep the ratio of their runs' own times."""

VALIDATION = "validation error %"
COMMON = {"data": "{}", "layers": "{} layers", "width": "width {}", "steps": "{} steps", "seeds": "{} seeds"}
"""Columns that stand once, above the table, where all rows agree in them."""


def lines(rows: Sequence[dict[str, Any]], cost: Cost = None) -> list[dict[str, str]]:
    """Each row as text by column name, without the columns in which all rows agree.

    Args:
        rows: from ``summary.summarise``.
        cost: see ``Cost``.
    """
    measured = {label(method): value for method, value in (cost or {}).items()}
    agreed = common(rows)

    def text(row: dict[str, Any]) -> dict[str, str]:
        first = {**row, "method": label(row["method"])}
        relative = measured.get(first["method"], row["cost"])
        return {
            **{name: str(first[name]) for name in ("data", "layers", "width", "method") if name not in agreed},
            "test error %": plus_minus(row["test_error"], row["test_deviation"]),
            f"paper ({paper.ITERATIONS // 1000}k it.)": "" if row["paper"] is None else f"{row['paper']:.1f}",
            VALIDATION: plus_minus(row["validation_error"], row["validation_deviation"]),
            **{name: str(first[name]) for name in ("steps", "seeds") if name not in agreed},
            **({"settings": row["settings"]} if any(each["settings"] for each in rows) else {}),
            "updates per layer": updates(row["updates_per_layer"]),
            "s/step × Bprop": "" if relative is None else f"{relative:.2f}",
        }

    return [text(row) for row in rows]


def common(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The values in which all rows agree, in words, by column name."""
    agreed = {name: found.pop() for name in COMMON if len(found := {row[name] for row in rows}) == 1}
    words = {name: COMMON[name].format(value) for name, value in agreed.items()}
    return {**words, "seeds": "1 seed"} if agreed.get("seeds") == 1 else words


def heading(rows: Sequence[dict[str, Any]]) -> str:
    """The line above the table: the values in which all rows agree, and the meaning of ±."""
    parts = list(common(rows).values())
    if any(row["test_deviation"] is not None for row in rows):
        parts.append("mean ± standard deviation over the seeds")
    return ", ".join(parts) if rows else "no run has finished yet"


def caption(cost: Cost = None) -> str:
    """The line below the table: how its times were measured."""
    return (
        f"s/step: {'measured with the methods in turn' if cost else 'from the runs, while other work may have run'}"
    )


def updates(counts: Sequence[int]) -> str:
    """Updates per layer, layer 1 first; one number if all layers had the same."""
    return str(counts[0]) if len(set(counts)) == 1 else " ".join(map(str, counts))
