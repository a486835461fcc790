"""Whether asynchrony costs error: the same recipe in processes and in one, and with everything late or lost."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from synthgrad.launch import Policy
from synthgrad_lab.config import Settings
from synthgrad_lab.launching import launched
from synthgrad_lab.launching.config import Launch, launch_from
from synthgrad_lab.launching.live import Board
from synthgrad_lab.recipes import mnist_fcn
from synthgrad_lab.record import Record, lines_to, note, read_lines, to_json

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


def gather(folder: Path, file: Path) -> Path:
    """Run every cell that the file of gathered records does not hold, one after the other, and add it there.

    Args:
        folder: of the runs; interrupted ones go on.
        file: the gathered records.
    """
    rows = {row["cell"]: row for row in read_lines(file)} if file.exists() else {}
    for name, (s, how) in cells().items():
        if name in rows and launch_from(rows[name]["launch"]) == how:
            continue
        note(name)
        place = folder / name.replace(" ", "-")
        with Board(s.steps) as board:
            if Record(place).path.exists() and how.on != "simulated":
                result = launched.resume(place, board)
            else:
                Record(place).path.unlink(missing_ok=True)  # a simulation has no checkpoints: it starts anew
                result = launched.run(replace(s, out=str(place)), how, board)
        (told,) = Record(place).read("settings")
        settings = {key: value for key, value in told["settings"].items() if key not in ("out", "data_dir")}
        rows[name] = {
            "cell": name,
            **{key: value for key, value in result.items() if key != "record"},
            "settings": settings,
            "launch": _plain(how),
            "environment": told["environment"],
        }
        lines_to(file, [rows[cell] for cell in cells() if cell in rows])
    return file


def _plain(how: Launch) -> dict[str, Any]:
    return json.loads(to_json(asdict(how)))
