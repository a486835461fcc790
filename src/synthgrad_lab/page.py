"""Tables in documents, written from committed records: nobody types a number."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from synthgrad.checkpoint import replace
from synthgrad_lab import feedforward_tables, recurrent_tables, results_tables
from synthgrad_lab.clocks import tables as clocks_tables
from synthgrad_lab.launching import tables as launching_tables
from synthgrad_lab.launching.projection import projection
from synthgrad_lab.record import read_lines

PLACE = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill(page: Path, results: Path) -> None:
    """Write every table of a page anew, between ``<!-- table: name -->`` and ``<!-- end -->``.

    Args:
        page: a Markdown file.
        results: the folder of gathered records.
    """
    replace(page, filled(page.read_text(), results).encode())


def write(path: Path, text: str, results: Path) -> Path:
    """A new page from a text with empty tables."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace(path, filled(text, results).encode())
    return path


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
        rows = read_lines(results / file)
        return match[1] + markdown(make(rows)) + match[3]

    return PLACE.sub(table, text)


def markdown(rows: Iterable[dict[str, str]]) -> str:
    """A Markdown table; the first column is text, the others numbers."""
    rows = list(rows)
    if not rows:
        return "(no records yet)\n"
    head = list(dict.fromkeys(name for row in rows for name in row))
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *([row.get(name, "") for name in head] for row in rows)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


TABLES: dict[str, tuple[str, Callable[[list[results_tables.Row]], list[dict[str, str]]]]] = {
    "every-layer": ("every-layer.jsonl", results_tables.every_layer),
    "demo": ("every-layer.jsonl", results_tables.demo),
    "quality": ("every-layer.jsonl", results_tables.quality),
    "bench-step": ("bench-step.jsonl", results_tables.bench),
    "bench-methods": ("bench-methods.jsonl", results_tables.bench),
    "bench-recurrent": ("bench-recurrent.jsonl", results_tables.bench),
    "bench-memory": ("bench-memory.jsonl", results_tables.bench),
    "feedforward": ("feedforward.jsonl", feedforward_tables.errors),
    "baselines": ("feedforward.jsonl", feedforward_tables.baselines),
    "variants": ("feedforward.jsonl", feedforward_tables.variants),
    "costs": ("feedforward.jsonl", feedforward_tables.costs),
    "clocks": ("clocks.jsonl", clocks_tables.table),
    "bench-clocks": ("bench-clocks.jsonl", results_tables.bench),
    "stages": ("stages.jsonl", launching_tables.learning),
    "bench-emulated": ("bench-emulated.jsonl", launching_tables.schedules),
    "bench-stages": ("bench-stages.jsonl", launching_tables.schedules),
    "bench-links": ("bench-stages.jsonl", launching_tables.links),
    "bench-faults": ("bench-faults.jsonl", launching_tables.faults),
    "bench-scale": ("bench-scale.jsonl", results_tables.bench),
    "projection": ("bench-scale.jsonl", projection),
    "stability": ("stability.jsonl", feedforward_tables.stability),
    "sparse": ("sparse.jsonl", feedforward_tables.sparse),
    **{recipe: ("recurrent.jsonl", recurrent_tables.table_of(recipe)) for recipe in recurrent_tables.MEASURES},
}
