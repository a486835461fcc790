"""Whether asynchrony costs error: a recipe in one process, in several, and with messages late or lost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from synthgrad_lab.feedforward.recipes import mnist_fcn
from synthgrad_lab.feedforward.settings import Method
from synthgrad_lab.running.experiment import Experiment, Planned
from synthgrad_lab.running.jsonl import Row

SEEDS = 3
STAGED: tuple[Method, ...] = ("cdni", "critic")
LATENESS = (2, 8, 32)
DROP = (0.2, 0.5, 0.8)
FAULTLESS: dict[str, dict[str, Any]] = {"in one process": {"on": "simulated"}, "in four processes": {}}
"""Launches by what happens to messages. A simulation without faults is a run in one process, bit for bit."""
_SIMULATED = {"on": "simulated", "policy": {"queue": 512, "in_flight": 512}}  # no sender waits for a late message
FAULTY: dict[str, dict[str, Any]] = {
    **{f"{n} steps late": {**_SIMULATED, "lateness": n} for n in LATENESS},
    **{f"{p:.0%} lost": {**_SIMULATED, "drop": p} for p in DROP},
}


@dataclass(frozen=True)
class Stages(Experiment):
    """Error of the 4-layer MNIST net in one process and in four, and with messages late or lost."""

    name = "stages"
    records = "stages"

    def runs(self, gathered: Sequence[Row]) -> Iterator[Planned]:
        """Three seeds of the launches without faults, one seed of the others; independent of the records."""
        for launches, seeds in ((FAULTLESS, range(SEEDS)), (FAULTY, [0])):
            for seed in seeds:
                for method in STAGED:
                    settings = replace(mnist_fcn(method), seed=seed)
                    for messages in launches:
                        yield Planned({"method": method, "messages": messages}, settings)

    def gather(self, out: Path, results: Path, workers: int, only: Sequence[str]) -> list[Path]:
        """As ``Experiment.gather``, but one run after the other: each has its own processes."""
        from synthgrad_lab.stages.gather import gather

        (file,) = self.files(results, only)
        order = [p.name for p in self.runs([])]
        gather(self._launches(results, only), out / self.place, file, order)
        return [file]

    def lacking(self, results: Path, only: Sequence[str]) -> list[str]:
        """The runs that have no record of today's settings, launch and version."""
        from synthgrad_lab.stages.gather import lacking

        (file,) = self.files(results, only)
        return [p.name for p, _ in lacking(self._launches(results, only), file)]

    def _launches(self, results: Path, only: Sequence[str]) -> list[tuple[Planned, Any]]:
        """The runs that are asked for, each with its launch."""
        from synthgrad_lab.stages.settings import launch_from

        known = {**FAULTLESS, **FAULTY}
        return [(p, launch_from(known[str(p.labels["messages"])])) for p in self.wanted(results, only)]


EXPERIMENTS: dict[str, type[Experiment]] = {"stages": Stages}
