"""Whether asynchrony costs error: a recipe in one process, in several, and with messages late or lost."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthgrad_lab.feedforward.recipes import mnist_fcn
from synthgrad_lab.feedforward.settings import Method
from synthgrad_lab.running.experiment import Experiment, Planned
from synthgrad_lab.running.gather import holds, merge, records, row_of
from synthgrad_lab.running.jsonl import Row, to_json
from synthgrad_lab.running.run_folder import begun, is_run_of, put_aside

if TYPE_CHECKING:
    from synthgrad_lab.stages.settings import Launch

log = logging.getLogger(__name__)
STAGED: tuple[Method, ...] = ("cdni", "critic")
FAULTLESS: dict[str, dict[str, Any]] = {"in one process": {"on": "simulated"}, "in four processes": {}}
"""Launches by what happens to messages. A simulation without faults is a run in one process, bit for bit."""
_SIMULATED = {"on": "simulated", "policy": {"queue": 512, "in_flight": 512}}  # no sender waits for a late message
FAULTY: dict[str, dict[str, Any]] = {
    **{f"{n} steps late": {**_SIMULATED, "lateness": n} for n in (2, 8, 32)},
    **{f"{p:.0%} lost": {**_SIMULATED, "drop": p} for p in (0.2, 0.5, 0.8)},
}


@dataclass(frozen=True)
class Stages(Experiment):
    """Error of the 4-layer MNIST net in one process and in four, and with messages late or lost."""

    name = "stages"
    records = "stages"

    def runs(self, gathered: Sequence[Row]) -> Iterator[Planned]:
        """Three seeds of the launches without faults, one seed of the others; independent of the records."""
        for launches, seeds in ((FAULTLESS, range(3)), (FAULTY, [0])):
            for seed in seeds:
                for method in STAGED:
                    settings = replace(mnist_fcn(method), seed=seed)
                    for messages in launches:
                        yield Planned({"method": method, "messages": messages}, settings)

    def gather(self, out: Path, results: Path, workers: int, only: Sequence[str]) -> list[Path]:
        """As ``Experiment.gather``, but one run after the other: each has its own processes."""
        (file,) = self.files(results, only)
        for p, how in self._lacking(results, only):
            log.info(p.name)
            folder = out / self.place / p.name.replace(" ", "-")
            row = row_of(p.name, p.labels, folder, _result(p.settings, how, folder))
            merge(file, [row | {"launch": json.loads(to_json(asdict(how)))}], [p.name for p in self.runs([])])
        return [file]

    def lacking(self, results: Path, only: Sequence[str]) -> list[str]:
        """The runs that have no record of today's settings, launch and version."""
        return [p.name for p, _ in self._lacking(results, only)]

    def _lacking(self, results: Path, only: Sequence[str]) -> list[tuple[Planned, Launch]]:
        from synthgrad_lab.stages.settings import launch_from

        (file,) = self.files(results, only)
        rows, known = {row["run"]: row for row in records(file)}, {**FAULTLESS, **FAULTY}
        wanted = [(p, rows.get(p.name)) for p in self.wanted(results, only)]
        found = [(p, launch_from(known[str(p.labels["messages"])]), row) for p, row in wanted]
        return [(p, how) for p, how, row in found if not (holds(row, p.settings) and _is_of(row, how))]


def _is_of(row: Row | None, how: Launch) -> bool:
    """Whether a record, or a run's first line, is of this launch."""
    from synthgrad_lab.stages.settings import launch_from

    try:
        return row is not None and launch_from(row["launch"]) == how
    except (KeyError, TypeError, ValueError):
        return False  # of a run in one process, or recorded with settings that no longer exist


def _result(s: Any, how: Launch, folder: Path) -> dict[str, Any]:
    """Run a launch in a folder, or resume it there; a folder of another run is put aside."""
    from synthgrad_lab.stages import training
    from synthgrad_lab.stages.board import Board

    with Board(s.steps) as board:
        if is_run_of(folder, s) and _is_of(begun(folder), how):
            return training.resume(folder, board)
        if begun(folder):
            put_aside(folder)
        return training.run(replace(s, out=str(folder)), how, board)


EXPERIMENTS: dict[str, type[Experiment]] = {"stages": Stages}
