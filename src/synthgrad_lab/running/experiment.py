"""An experiment: runs by their labels, and the records that are gathered from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from synthgrad_lab.running.gather import gather, lacking, records
from synthgrad_lab.running.jsonl import Row
from synthgrad_lab.running.settings import Checked, Settings

Label = str | int | float


@dataclass(frozen=True)
class Planned:
    """A run of an experiment."""

    labels: Mapping[str, Label]
    """Distinguish it, with its seed, from the experiment's other runs; they are fields of its record."""
    settings: Settings
    records: str = ""
    """Name of the file that gathers its record; without it the experiment's own."""

    @property
    def name(self) -> str:
        """The run's name: its labels and its seed."""
        return "--".join([*map(str, self.labels.values()), f"seed{self.settings.seed}"])


@dataclass(frozen=True)
class Experiment(Checked):
    """What ``synthgrad reproduce NAME`` runs. A subclass's fields are the options of that command.

    ``name`` and ``records`` are class attributes: the command's word, and the folder below ``results/``.
    """

    name = ""
    records = ""

    @property
    def place(self) -> str:
        """Folder of the runs, below ``--out``."""
        return self.name

    @property
    def documented(self) -> bool:
        """Whether the documents report these records, and not those of a smaller or larger budget."""
        return True

    def runs(self, gathered: Sequence[Row]) -> Iterable[Planned]:
        """The runs; those that depend on the results of others come once these are among the gathered records."""
        raise NotImplementedError

    def gather(self, out: Path, results: Path, workers: int, only: Sequence[str]) -> list[Path]:
        """Run what the gathered records do not hold yet, and add it there.

        Args:
            out: folder of the runs.
            results: folder of the gathered records.
            workers: processes at a time.
            only: words; if given, only runs whose name holds one of them.

        Returns:
            The files of gathered records.

        Raises:
            ValueError: if no run's name holds one of the words.
        """
        files = self.files(results, only)
        before: set[str] = set()
        while todo := {p.name: p for p in self.wanted(results, only) if p.name not in before}:
            before |= todo.keys()
            for file in files:
                mine = {name: p for name, p in todo.items() if self.file(results, p) == file}
                gather(mine, out / self.place, file, workers)
        return files

    def lacking(self, results: Path, only: Sequence[str]) -> list[str]:
        """The runs that have no record of today's settings and version."""
        planned = self.wanted(results, only)
        return [
            name
            for file in self.files(results, only)
            for name in lacking({p.name: p.settings for p in planned if self.file(results, p) == file}, file)
        ]

    def wanted(self, results: Path, only: Sequence[str]) -> list[Planned]:
        """The runs that are asked for, given the records that are there."""
        rows = [row for file in sorted((results / self.records).glob("*.jsonl")) for row in records(file)]
        found = [p for p in self.runs(rows) if not only or any(word in p.name for word in only)]
        if not found:
            raise ValueError(f"--only {' '.join(only)}: no run of {self.name} has such a name")
        return found

    def files(self, results: Path, only: Sequence[str]) -> list[Path]:
        """The files of gathered records."""
        return list(dict.fromkeys(self.file(results, p) for p in self.wanted(results, only)))

    def file(self, results: Path, planned: Planned) -> Path:
        """The file that gathers a run's record."""
        return results / self.records / f"{planned.records or self.name}.jsonl"

    def finish(self, out: Path, results: Path) -> list[Path]:
        """Write what an experiment has besides records: figures, a page of its own."""
        return []
