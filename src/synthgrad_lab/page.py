"""Tables in documents, written from committed records: nobody types a number."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from synthgrad_lab import paper
from synthgrad_lab.recipes import SHOWN
from synthgrad_lab.record import replace
from synthgrad_lab.tables import plus_minus

PLACE = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
Row = dict[str, Any]


def fill(page: Path, results: Path) -> None:
    """Write every table of a page anew, between ``<!-- table: name -->`` and ``<!-- end -->``.

    Args:
        page: a Markdown file.
        results: the folder of gathered records.
    """
    replace(page, filled(page.read_text(), results).encode())


def filled(text: str, results: Path) -> str:
    """The text with its tables as the records have them.

    Raises:
        ValueError: if a table's name is unknown.
        FileNotFoundError: if its records are missing.
    """

    def table(match: re.Match[str]) -> str:
        name = match[2]
        if name not in TABLES:
            raise ValueError(f"unknown table {name!r}; there are: {', '.join(TABLES)}")
        file, make = TABLES[name]
        rows = [json.loads(line) for line in (results / file).read_text().splitlines()]
        return match[1] + markdown(make(rows)) + match[3]

    return PLACE.sub(table, text)


def markdown(rows: Iterable[dict[str, str]]) -> str:
    """A Markdown table; the first column is text, the others numbers."""
    rows = list(rows)
    head = list(rows[0])
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *([*row.values()] for row in rows)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def every_layer(records: list[Row]) -> list[dict[str, str]]:
    """Test error by network and method, seeds together."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for r in records:
        linear = r["method"] == "cdni" and r["settings"]["model_depth"] == 0
        groups.setdefault((r["layers"], r["steps"], r["method"], linear), []).append(r)
    rows = []
    for (layers, steps, method, linear), runs in sorted(groups.items(), key=_order):
        bprop = groups.get((layers, steps, "bprop", False))
        mean = statistics.mean(r["test_error"] for r in runs)
        gap = f"{mean - statistics.mean(r['test_error'] for r in bprop):+.2f}" if bprop else ""
        known = paper.test_error("mnist", "mnist-fcn", method, layers, 256)
        rows.append(
            {
                "method": SHOWN[method] + (", linear M" if linear else ""),
                "layers": str(layers),
                "steps": f"{steps:,}",
                "seeds": str(len(runs)),
                "test error %": _spread(runs, "test_error"),
                "over Bprop": "" if method == "bprop" else gap,
                "validation error %": _spread(runs, "validation_error"),
                "paper, 500k steps": "" if known is None else f"{known:.1f}",
            }
        )
    return rows


def demo(records: list[Row]) -> list[dict[str, str]]:
    """All methods at 4 layers and 3,000 steps, for the README."""
    rows = every_layer([r for r in records if _default(r)])
    return [{k: row[k] for k in ("method", "test error %", "paper, 500k steps")} for row in rows]


def quality(records: list[Row]) -> list[dict[str, str]]:
    """Cosine and relative error at the end of training, per interface, seeds averaged."""
    rows = []
    for method in ("dni", "cdni"):
        runs = [r for r in records if r["method"] == method and _default(r)]
        for name in runs[0]["quality"]:
            row = {"method": f"{SHOWN[method]}, {name}"}
            for measure in runs[0]["quality"][name]:
                row[measure.replace("_", " ")] = f"{statistics.mean(r['quality'][name][measure] for r in runs):.2f}"
            rows.append(row)
    return rows


def bench(records: list[Row]) -> list[dict[str, str]]:
    """A benchmark's rows as they were recorded."""
    rows = [{k: v for k, v in r.items() if k not in ("bench", "environment")} for r in records]
    order = ("case", "depth")  # the text column first
    return [
        {k.replace("_", " "): _number(row[k]) for k in sorted(row, key=lambda k: k not in order)} for row in rows
    ]


TABLES: dict[str, tuple[str, Callable[[list[Row]], list[dict[str, str]]]]] = {
    "every-layer": ("every-layer.jsonl", every_layer),
    "demo": ("every-layer.jsonl", demo),
    "quality": ("every-layer.jsonl", quality),
    "bench-step": ("bench-step.jsonl", bench),
    "bench-memory": ("bench-memory.jsonl", bench),
}


def _default(r: Row) -> bool:
    return (r["layers"], r["steps"]) == (4, 3000) and r["settings"]["model_depth"] > 0


def _order(item: tuple[tuple[Any, ...], Any]) -> tuple[Any, ...]:
    layers, steps, method, linear = item[0]
    return steps, layers, list(SHOWN).index(method), linear


def _spread(runs: list[Row], key: str) -> str:
    values = [r[key] for r in runs]
    return plus_minus(statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None)


def _number(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)
