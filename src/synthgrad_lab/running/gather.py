"""Records of many runs in one file, which is also the memory of what has been run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from synthgrad_lab.families import AnySettings, settings_from
from synthgrad_lab.running.gathered import Row, merge, records
from synthgrad_lab.running.grid import run_cells
from synthgrad_lab.running.jsonl import to_json
from synthgrad_lab.running.record import note
from synthgrad_lab.running.run_folder import begun
from synthgrad_lab.running.settings import PLACES
from synthgrad_lab.running.versions import is_todays


def gather(cells: Mapping[str, AnySettings], folder: Path, file: Path, workers: int = 2) -> Path:
    """Run every cell that the file of gathered records does not hold yet, and add it there.

    Args:
        cells: settings by name.
        folder: of the runs.
        file: the gathered records, one run a line; paths of this machine are left out. A cell that it holds with
            the same settings and today's version of the recipe is not run again, so the runs may be spread over
            days, machines and processes at a time. Its other cells stay; so does a cell's old record until its new
            one is there.
        workers: processes at a time.

    Returns:
        The file; it is written anew whenever a run has ended, so it holds what has ended after any interruption.
    """
    rows = {row["cell"]: row for row in records(file)}
    todo = {name: s for name, s in cells.items() if not holds(rows.get(name), s)}
    if done := len(cells) - len(todo):
        note(f"{done} of {len(cells)} runs are in {file} already")

    def keep(name: str, result: dict[str, Any]) -> None:
        merge(file, [row_of(name, folder / name, result)], list(cells))

    run_cells(todo, folder, workers, keep)
    return file


def row_of(name: str, folder: Path, result: dict[str, Any]) -> Row:
    """The gathered record of a run that has ended."""
    told = dict(begun(folder) or {})
    settings = portable(told.pop("settings"))
    del told["kind"]
    # A recurrent run's own "cell" (rnn, lstm, …) is among its settings.
    result = {key: value for key, value in result.items() if key not in ("record", "cell")}
    return {"cell": name, **result, "settings": settings, **told}


def holds(row: Row | None, settings: AnySettings) -> bool:
    """Whether a row is a run with these settings, by today's version of the recipe.

    Settings that came later than the row have the values that they had before.
    """
    if row is None or not is_todays(row):
        return False
    try:
        found = asdict(settings_from(row["settings"]))
    except (TypeError, ValueError):
        return False  # a setting of then is gone, or refused today
    return portable(found) == portable(asdict(settings))


def portable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as a record has them, without this machine's paths."""
    return {name: value for name, value in json.loads(to_json(dict(settings))).items() if name not in PLACES}


def lacking(cells: Mapping[str, AnySettings], file: Path) -> list[str]:
    """The cells of which the file holds no record of today's settings and version."""
    rows = {row["cell"]: row for row in records(file)}
    return [name for name, s in cells.items() if not holds(rows.get(name), s)]
