"""Tables in documents, written from gathered records: no number is typed by hand."""

import re
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from pathlib import Path

from synthgrad.checkpoint import write_atomically
from synthgrad_lab.reporting.statistics import grouped, newest
from synthgrad_lab.reporting.tables import Lines
from synthgrad_lab.running import versions
from synthgrad_lab.running.jsonl import Row, read_lines

PLACE = re.compile(r"<!-- table: (\S+)( older)? -->\n.*?<!-- end -->", re.DOTALL)
"""A table's place in a document. It takes records of today's versions; with ``older`` behind its name it takes the
newest there are, and says below which of them are older."""
EMPTY = "(no records yet)"


@dataclass(frozen=True)
class Table:
    """A table of documents: where its records are, and how it is made from them."""

    records: str
    """File of gathered records below ``results/``, without .jsonl."""
    make: Callable[[list[Row]], Lines]
    command: str
    """Command that makes the records."""
    check: Callable[[Row], object] = lambda row: None
    """Raises ValueError for a record whose settings no longer exist."""
    today: versions.Today = versions.recorded_version
    """The version that a record's run would have today."""

    def text(self, name: str, older: bool, results: Path) -> str:
        """The table between its marks; the mark ``older`` goes where it is no longer true.

        Raises:
            FileNotFoundError: if there is no file of records.
            ValueError: if it has no record, or one of another version or with settings that no longer exist.
        """
        file = results / f"{self.records}.jsonl"
        if not file.exists():
            raise FileNotFoundError(f"table {name}: there is no {file}; `synthgrad {self.command}` makes it")
        rows = read_lines(file)
        for row in rows:
            try:
                self.check(row)
            except (ValueError, TypeError) as error:
                raise ValueError(f"table {name}: {file}, run {row.get('run')}: {error}; remove it") from None
        todays, others = versions.split(rows, self.today)
        # Older records matter only where they are records of this table.
        differs = bool(others) and self._markdown(newest(rows)) != self._markdown(todays)
        if differs and not older:
            raise ValueError(
                f"table {name}: {file} has records of another version of their recipe, "
                f"{versions.counted(others, self.today)}; `synthgrad {self.command}` makes them again "
                f"(until then: <!-- table: {name} older -->)"
            )
        found = self._markdown(newest(rows) if differs else todays)
        if EMPTY in found:
            raise ValueError(f"table {name}: {file} holds no record for it; `synthgrad {self.command}` makes them")
        if not differs:
            return f"<!-- table: {name} -->\n{found}<!-- end -->"
        below = f"Made with an older version of the recipe: {self._older_in(newest(rows))}."
        return f"<!-- table: {name} older -->\n{found}\n{below}\n<!-- end -->"

    def _older_in(self, rows: list[Row]) -> str:
        """The older records without which the table would look different, in words."""
        whole, found = self._markdown(rows), []
        for some in grouped(versions.split(rows, self.today)[1], versions.place).values():
            if self._markdown([row for row in rows if row not in some]) != whole:
                found += some
        return versions.placed(found, self.today)

    def _markdown(self, rows: list[Row]) -> str:
        return markdown(self.make(rows) if rows else [])


def fill(page: Path, tables: Mapping[str, Table], results: Path) -> None:
    """Write every table of a Markdown file, between ``<!-- table: name -->`` and ``<!-- end -->``."""
    write(page, page.read_text("utf-8"), tables, results)


def filled(text: str, tables: Mapping[str, Table], results: Path, without: Container[str] = ()) -> str:
    """The text with its tables as the records in ``results`` have them; those of the files ``without`` stay.

    Raises:
        ValueError: if a table's name is unknown, or as ``Table.text``.
        FileNotFoundError: as ``Table.text``.
    """

    def place(match: re.Match[str]) -> str:
        name, older = match[1], bool(match[2])
        if name not in tables:
            raise ValueError(f"unknown table {name!r}; there are: {', '.join(tables)}")
        return match[0] if tables[name].records in without else tables[name].text(name, older, results)

    return PLACE.sub(place, text)


def write(path: Path, text: str, tables: Mapping[str, Table], results: Path) -> Path:
    """A new page from a text with empty tables."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, filled(text, tables, results).encode())
    return path


def markdown(rows: Lines) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    if not rows:
        return f"{EMPTY}\n"
    head = list(dict.fromkeys(name for row in rows for name in row))
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *([row.get(name, "") for name in head] for row in rows)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
