"""A file of gathered records, one a line: written under a lock, and never shorter than it was."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from synthgrad_lab.running.jsonl import lines_to, read_lines

Row = dict[str, Any]


def records(file: Path) -> list[Row]:
    """The records of a file; none if there is no file yet."""
    return read_lines(file) if file.exists() else []


def by_cell(row: Row) -> Any:
    """What names a record of an experiment: two of one name are the same run, made twice."""
    return row["cell"]


def merge(file: Path, rows: Iterable[Row], first: Sequence[Any] = (), name: Callable[[Row], Any] = by_cell) -> None:
    """Put records into a file, each in the place of the one of its name; all others stay.

    The file is read at this moment, under a lock: what other processes have put there meanwhile stays, too.

    Args:
        file: the gathered records; a new one if it is not there.
        rows: to put there.
        first: names in the order in which their records come first; the others follow as they are.
        name: of a record.

    Raises:
        ValueError: if a name is in the file twice: one of them would be lost.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_name(f".{file.name}.lock")):
        before = records(file)
        found = {name(row): row for row in before}
        if len(found) < len(before):
            raise ValueError(
                f"{file} holds {len(before)} records of {len(found)} names; remove what is there twice"
            )
        found |= {name(row): row for row in rows}
        ordered = [*(key for key in first if key in found), *(key for key in found if key not in set(first))]
        if len(ordered) < len(before):
            raise ValueError(f"{file}: {len(ordered)} records would take the place of {len(before)}")
        lines_to(file, [found[key] for key in ordered])
