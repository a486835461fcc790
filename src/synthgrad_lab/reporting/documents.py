"""Tables in documents, written from committed records: nobody types a number."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from synthgrad.checkpoint import write_atomically
from synthgrad_lab.clocks import tables as clocks_tables
from synthgrad_lab.feedforward import tables as feedforward_tables
from synthgrad_lab.recurrent import tables as recurrent_tables
from synthgrad_lab.reporting import tables as results_tables
from synthgrad_lab.reporting.statistics import grouped, newest
from synthgrad_lab.running.jsonl import Row, read_lines
from synthgrad_lab.running.versions import is_todays, split, told, told_where, where
from synthgrad_lab.stages import tables as launching_tables
from synthgrad_lab.stages.projection import projection

Make = Callable[[list[Row]], list[dict[str, str]]]
"""Computes a table from records."""
PLACE = re.compile(r"<!-- table: (\S+)( older)? -->\n.*?<!-- end -->", re.DOTALL)
"""A table's place in a document. It takes records of today's recipes alone; with ``older`` behind its name it takes
the newest there are, and says below which of them are of an older version."""
EMPTY = "(no records yet)"


def fill(page: Path, results: Path) -> None:
    """Write every table of a page anew, between ``<!-- table: name -->`` and ``<!-- end -->``.

    Args:
        page: a Markdown file.
        results: the folder of gathered records.
    """
    write_atomically(page, filled(page.read_text("utf-8"), results).encode())


def write(path: Path, text: str, results: Path) -> Path:
    """A new page from a text with empty tables."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, filled(text, results).encode())
    return path


def filled(text: str, results: Path) -> str:
    """The text with its tables as the records have them.

    Raises:
        ValueError: if a table's name is unknown, a table has no row, or has records of another version of a recipe
            than today's (and does not say that it may).
        FileNotFoundError: if its records are missing.
    """
    return PLACE.sub(lambda match: _place(match[1], bool(match[2]), results), text)


def tables_of(file: str) -> list[str]:
    """The names of the tables that are computed from a file of gathered records."""
    return [name for name, (source, _) in TABLES.items() if source == file]


def made(file: Path) -> list[list[dict[str, str]]]:
    """The tables that have rows, of a file of gathered records, those of today's recipes."""
    todays, _ = split(read_lines(file))
    return [rows for name in tables_of(file.name) if (rows := TABLES[name][1](todays))]


def refuse_unfit(text: str, results: Path, besides: str) -> None:
    """Look at the tables of a document before long runs, of which it is to tell.

    Args:
        text: the document.
        results: the folder of gathered records.
        besides: the file of gathered records that the runs will fill; its tables are not looked at.

    Raises:
        ValueError: as ``filled``.
        FileNotFoundError: as ``filled``.
    """
    for match in PLACE.finditer(text):
        if match[1] not in tables_of(besides):
            _place(match[1], bool(match[2]), results)


def _place(name: str, older: bool, results: Path) -> str:
    """A table between its marks; the mark ``older`` goes where it is no longer true."""
    if name not in TABLES:
        raise ValueError(f"unknown table {name!r}; there are: {', '.join(TABLES)}")
    file, make = TABLES[name]
    rows = read_lines(results / file)
    todays, others = split(rows)
    # Records of another version matter where they are records of this table.
    told_apart = others and _text(make, newest(rows)) != _text(make, todays)
    if told_apart and not older:
        raise ValueError(
            f"table {name}: {results / file} has records of another version of their recipe, {told(others)}; "
            f"`synthgrad {_command(file)}` makes them again (until then: <!-- table: {name} older -->)"
        )
    found = _text(make, newest(rows) if told_apart else todays)
    if EMPTY in found:
        raise ValueError(f"table {name}: {results / file} holds no record for it; a document has no empty tables")
    if not told_apart:
        return f"<!-- table: {name} -->\n{found}<!-- end -->"
    below = f"Made with an older version of the recipe: {told_where(_older_in(make, newest(rows)))}."
    return f"<!-- table: {name} older -->\n{found}\n{below}\n<!-- end -->"


def _command(file: str) -> str:
    return f"sweep sparse --record results/{file}" if file == "sparse.jsonl" else f"reproduce {Path(file).stem}"


def _older_in(make: Make, rows: list[Row]) -> list[Row]:
    """The records of another version that a table would look different without."""
    whole, found = _text(make, rows), []
    for key, some in grouped(split(rows)[1], where).items():
        if _text(make, [row for row in rows if is_todays(row) or where(row) != key]) != whole:
            found += some
    return found


def _text(make: Make, rows: list[Row]) -> str:
    return markdown(make(rows)) if rows else markdown([])


def markdown(rows: Iterable[dict[str, str]]) -> str:
    """A Markdown table; the first column is text, the others numbers."""
    rows = list(rows)
    if not rows:
        return f"{EMPTY}\n"
    head = list(dict.fromkeys(name for row in rows for name in row))
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *([row.get(name, "") for name in head] for row in rows)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


TABLES: dict[str, tuple[str, Make]] = {
    "every-layer": ("every-layer.jsonl", feedforward_tables.every_layer),
    "demo": ("every-layer.jsonl", feedforward_tables.demo),
    "quality": ("every-layer.jsonl", feedforward_tables.quality),
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
