"""Gathered records of runs in stages, as ``running.gather`` has them of runs in one process."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from synthgrad_lab.running.experiment import Planned
from synthgrad_lab.running.gather import holds, merge, records, row_of
from synthgrad_lab.running.jsonl import Row, to_json
from synthgrad_lab.running.run_folder import begun, is_run_of, put_aside
from synthgrad_lab.stages import training
from synthgrad_lab.stages.board import Board
from synthgrad_lab.stages.settings import Launch, launch_from

log = logging.getLogger(__name__)
Launches = Sequence[tuple[Planned, Launch]]


def gather(runs: Launches, folder: Path, file: Path, order: Sequence[str]) -> None:
    """Run every launch that the file lacks, one after the other, and add its record.

    Args:
        runs: planned runs and their launches.
        folder: of the runs; interrupted ones are resumed.
        file: the gathered records.
        order: names of all runs that the file may hold, in the order of their records.
    """
    for p, how in lacking(runs, file):
        log.info(p.name)
        place = folder / p.name.replace(" ", "-")
        row = row_of(p.name, p.labels, place, _result(p.settings, how, place))
        merge(file, [row | {"launch": json.loads(to_json(asdict(how)))}], order)


def lacking(runs: Launches, file: Path) -> Launches:
    """The runs of which the file holds no record of today's settings, launch and version."""
    rows = {row["run"]: row for row in records(file)}
    found = [(p, how, rows.get(p.name)) for p, how in runs]
    return [(p, how) for p, how, row in found if not (holds(row, p.settings) and _is_of(row, how))]


def _is_of(row: Row | None, how: Launch) -> bool:
    """Whether a record, or a run's first line, is of this launch."""
    try:
        return row is not None and launch_from(row["launch"]) == how
    except (KeyError, TypeError, ValueError):
        return False  # of a run in one process, or recorded with settings that no longer exist


def _result(s: Any, how: Launch, folder: Path) -> dict[str, Any]:
    """Run a launch in a folder, or resume it there; a folder of another run is put aside."""
    with Board(s.steps) as board:
        if is_run_of(folder, s) and _is_of(begun(folder), how):
            return training.resume(folder, board)
        if begun(folder):
            put_aside(folder)
        return training.run(replace(s, out=str(folder)), how, board)
