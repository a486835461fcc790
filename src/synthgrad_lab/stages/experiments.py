"""Whether asynchrony costs error: the same recipe in processes and in one, and with everything late or lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from synthgrad.stages import Policy
from synthgrad_lab.feedforward.recipes import mnist_fcn
from synthgrad_lab.feedforward.settings import Settings
from synthgrad_lab.running.gather import holds, row_of
from synthgrad_lab.running.gathered import Row, merge, records
from synthgrad_lab.running.jsonl import to_json
from synthgrad_lab.running.record import note
from synthgrad_lab.running.run_folder import begun, is_run_of, put_aside
from synthgrad_lab.stages import training as launched
from synthgrad_lab.stages.board import Board
from synthgrad_lab.stages.settings import Launch, launch_from

SEEDS = 3
METHODS: tuple[Any, ...] = ("cdni", "critic")
LATENESS = (2, 8, 32)
DROP = (0.2, 0.5, 0.8)


def cells() -> dict[str, tuple[Settings, Launch]]:
    """Every run by name; in one process is a simulation without faults, which is that bit for bit."""
    seeded = [replace(mnist_fcn(method), seed=seed) for seed in range(SEEDS) for method in METHODS]
    found = {(s, name): how for s in seeded for name, how in _CALM.items()}
    found |= {(s, name): how for s in seeded if s.seed == 0 for name, how in _faulty().items()}
    return {f"{s.method}--{name}--seed{s.seed}": (s, how) for (s, name), how in found.items()}


_CALM = {"in one process": Launch(on="simulated"), "in four processes": Launch()}


def _faulty() -> dict[str, Launch]:
    patient = Policy(queue=512, in_flight=512)  # what is late must not make a sender wait
    late = {f"{n} steps late": Launch(on="simulated", lateness=n, policy=patient) for n in LATENESS}
    return late | {f"{p:.0%} lost": Launch(on="simulated", drop=p, policy=patient) for p in DROP}


def gather(folder: Path, file: Path, wanted: Callable[[str], bool] = lambda name: True) -> Path:
    """Run every cell that the file of gathered records does not hold, one after the other, and add it there.

    Args:
        folder: of the runs; interrupted ones go on.
        file: the gathered records.
        wanted: which cells, by name.
    """
    rows = {row["cell"]: row for row in records(file)}
    todo = cells()
    for name, (s, how) in todo.items():
        if not wanted(name) or recorded_so(rows.get(name), s, how):
            continue
        note(name)
        place = folder / name.replace(" ", "-")
        with Board(s.steps) as board:
            if is_run_of(place, s) and launched.recorded(place)[1] == how:
                result = launched.resume(place, board)
            else:
                if begun(place):
                    put_aside(place)
                result = launched.run(replace(s, out=str(place)), how, board)
        merge(file, [row_of(name, place, result) | {"launch": _plain(how)}], list(todo))
    return file


def recorded_so(row: Row | None, s: Settings, how: Launch) -> bool:
    """Whether a record is of this run, by today's version of the recipe."""
    return holds(row, s) and row is not None and launch_from(row["launch"]) == how


def _plain(how: Launch) -> dict[str, Any]:
    return json.loads(to_json(asdict(how)))
