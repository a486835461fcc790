"""Records of many runs in one file, which is also the memory of what has been run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from synthgrad_lab.experiments.cells import run_cells
from synthgrad_lab.kinds import AnySettings, settings_from
from synthgrad_lab.record import Record, lines_to, note, read_lines, to_json


def gather(cells: Mapping[str, AnySettings], folder: Path, file: Path, workers: int = 2) -> Path:
    """Run every cell that the file of gathered records does not hold yet, and add it there.

    Args:
        cells: settings by name.
        folder: of the runs.
        file: the gathered records, one run a line; paths of this machine are left out. A cell that it holds with
            the same settings is not run again, so the runs may be spread over days and machines. Its other cells
            stay.
        workers: processes at a time.

    Returns:
        The file; it is written anew whenever a run has ended, so it holds what has ended after any interruption.
    """
    found = {row["cell"]: row for row in read_lines(file)} if file.exists() else {}
    others = [row for name, row in found.items() if name not in cells]
    rows = {name: row for name, row in found.items() if name in cells and _recorded(row) == _portable(cells[name])}
    todo = {name: settings for name, settings in cells.items() if name not in rows}
    if rows:
        note(f"{len(cells) - len(todo)} of {len(cells)} runs are in {file} already")

    def keep(name: str, result: dict[str, Any]) -> None:
        (told,) = Record(folder / name).read("settings")
        del told["settings"], told["kind"]
        # A recurrent run's own "cell" (rnn, lstm, …) is among its settings.
        result = {key: value for key, value in result.items() if key not in ("record", "cell")}
        rows[name] = {"cell": name, **result, "settings": _portable(cells[name]), **told}
        lines_to(file, [*(rows[name] for name in cells if name in rows), *others])

    run_cells(todo, folder, workers, keep)
    return file


def _recorded(row: dict[str, Any]) -> dict[str, Any] | None:
    """A row's settings; those that came later than the row have the values that they had before."""
    try:
        return _portable(settings_from(row["settings"]))
    except (TypeError, ValueError):
        return None  # a setting of then is gone, or refused today


def _portable(s: AnySettings) -> dict[str, Any]:
    """The settings as a record has them, without this machine's paths."""
    settings = json.loads(to_json(asdict(s)))
    return {name: value for name, value in settings.items() if name not in ("out", "data_dir", "text")}
