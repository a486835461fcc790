"""Gathered records: one file for many runs, one run a line, which is also the memory of what has been run."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock

from synthgrad_lab.running.jsonl import Row, lines_to, read_lines, to_json
from synthgrad_lab.running.run_folder import begun
from synthgrad_lab.running.settings import PLACES, Settings
from synthgrad_lab.running.versions import recorded_version

log = logging.getLogger(__name__)


def gather(runs: Mapping[str, Any], folder: Path, file: Path, workers: int = 2) -> Path:
    """Run every planned run that the file does not hold yet, and add its record.

    A run that the file holds with the same settings and today's version of the recipe is not run again, so the runs may
    be spread over days, machines and processes. Other records stay; so does a run's old record until its new one is
    there.

    Args:
        runs: planned runs (with ``labels`` and ``settings``) by name.
        folder: of the runs.
        file: the gathered records, without paths of this machine; it is written whenever a run ends.
        workers: processes at a time.

    Returns:
        The file.
    """
    rows = {row["run"]: row for row in records(file)}
    todo = {name: p for name, p in runs.items() if not holds(rows.get(name), p.settings)}
    if done := len(runs) - len(todo):
        log.info("%d of %d runs are in %s already", done, len(runs), file)

    def keep(name: str, result: dict[str, Any]) -> None:
        merge(file, [row_of(name, runs[name].labels, folder / name, result)], list(runs))

    from synthgrad_lab.running import grid  # needs torch, which a command's --help must not wait for

    grid.run_grid({name: p.settings for name, p in todo.items()}, folder, workers, keep)
    return file


def row_of(name: str, labels: Mapping[str, Any], folder: Path, result: dict[str, Any]) -> Row:
    """The gathered record of a run that has ended."""
    first = dict(begun(folder) or {})
    del first["kind"]
    result = {key: value for key, value in result.items() if key not in ("record", *labels)}
    return {"run": name, **labels, **result, **first, "settings": portable(first["settings"])}


def holds(row: Row | None, settings: Settings) -> bool:
    """Whether a record is of a run with these settings, by today's version of the recipe."""
    if row is None or recorded_version(row) != settings.version:
        return False
    try:
        recorded = settings.from_record(row["settings"])
    except (TypeError, ValueError):
        return False  # recorded with settings that no longer exist, or are refused today
    return portable(asdict(recorded)) == portable(asdict(settings))


def portable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as a record has them, without this machine's paths."""
    values = json.loads(to_json(dict(settings)))
    for name in PLACES:
        group, _, own = name.rpartition(".")
        (values.get(group, {}) if group else values).pop(own, None)
    return values


def lacking(runs: Mapping[str, Settings], file: Path) -> list[str]:
    """The runs of which the file holds no record of today's settings and version."""
    rows = {row["run"]: row for row in records(file)}
    return [name for name, s in runs.items() if not holds(rows.get(name), s)]


def records(file: Path) -> list[Row]:
    """The records of a file; none if there is no file yet."""
    return read_lines(file) if file.exists() else []


def by_run(row: Row) -> Any:
    """The name of a run's record: two of one name are of the same run, made twice."""
    return row["run"]


def merge(file: Path, rows: Iterable[Row], first: Sequence[Any] = (), name: Callable[[Row], Any] = by_run) -> None:
    """Put records into a file, each in the place of the one of its name; all others stay.

    The file is read under a lock, so what other processes have put there meanwhile stays, too.

    Args:
        file: the gathered records; a new one if it is not there.
        rows: to put there.
        first: names in the order in which their records come first; the others follow as they are.
        name: of a record.

    Raises:
        ValueError: if a name is in the file twice: one of the records would be lost.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_name(f".{file.name}.lock")):
        before = records(file)
        found = {name(row): row for row in before}
        if len(found) < len(before):
            raise ValueError(f"{file} holds {len(before)} records of {len(found)} names; remove those there twice")
        found |= {name(row): row for row in rows}
        ordered = [*(key for key in first if key in found), *(key for key in found if key not in set(first))]
        lines_to(file, [found[key] for key in ordered])
