"""Runs, read back from their folders."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthgrad_lab.reporting import statistics
from synthgrad_lab.running.jsonl import Row
from synthgrad_lab.running.record import Record
from synthgrad_lab.running.versions import recorded_version


@dataclass(frozen=True)
class Run:
    """One run, as its record has it; ``events`` and ``result`` are there if it has ended."""

    folder: Path
    family: str
    settings: dict[str, Any]
    """Nested, and complete."""
    environment: dict[str, Any]
    points: list[dict[str, Any]]
    """The curve."""
    events: list[dict[str, Any]]
    """The timeline of one step."""
    result: dict[str, Any] | None
    state: str
    """In words: finished, interrupted at step 40 of 200, ..."""
    launch: dict[str, Any] | None = None
    """How a run in stages was cut, and where it ran."""
    version: int = 1
    """Of its recipe."""

    @property
    def row(self) -> Row:
        """The run as a record for ``statistics``."""
        launch = {name: value for name, value in (self.launch or {}).items() if name != "cuts"}
        return {"run": self.folder.name, "settings": self.settings, "version": self.version, "launch": launch}


def runs_under(place: Path) -> list[Path]:
    """The run folders at or below a place; the place itself if there is none, so that ``read`` names it."""
    return sorted(path.parent for path in place.rglob("record.jsonl")) or [place]


def read(
    folders: Sequence[Path], complete: Callable[[Row], dict[str, Any]] = lambda first: first["settings"]
) -> tuple[list[Run], list[Path]]:
    """Read run folders: the runs, and the folders that hold none.

    Args:
        folders: one per run.
        complete: returns the settings of a record's first line with defaults for those that are newer.

    Raises:
        FileNotFoundError: if a folder does not exist, or none of them holds a run.
        ValueError: if no folder is given.
    """
    if not folders:
        raise ValueError("nothing to report: no run folder was given")
    if missing := [str(folder) for folder in folders if not folder.is_dir()]:
        raise FileNotFoundError(f"no such folder: {', '.join(missing)}")
    runs = {folder: _read(folder, complete) for folder in folders}
    if not any(runs.values()):
        raise FileNotFoundError(
            f"nothing to report: {', '.join(map(str, runs))} holds no run (a record.jsonl that starts with "
            "the run's settings); give run folders, or folders of them"
        )
    return [run for run in runs.values() if run], [folder for folder, run in runs.items() if not run]


def _read(folder: Path, complete: Callable[[Row], dict[str, Any]]) -> Run | None:
    try:
        lines = Record(folder).read()
        kinds = statistics.grouped(lines, lambda line: line["kind"])
        first = kinds["settings"][0]
        return Run(
            folder=folder,
            family=first["family"],
            settings=complete(first),
            environment=first.get("environment", {}),
            points=kinds.get("point", []),
            events=kinds["timeline"][-1]["events"] if "timeline" in kinds else [],
            result=kinds["result"][-1] if "result" in kinds else None,
            state="finished" if "result" in kinds else _state(lines, first["settings"]["steps"]),
            launch=first.get("launch"),
            version=recorded_version(first),
        )
    except (FileNotFoundError, KeyError, TypeError, UnicodeDecodeError):
        return None  # no record, or another program's


def _state(lines: list[dict[str, Any]], steps: int) -> str:
    last = next((line for line in reversed(lines) if "step" in line), {"kind": "started", "step": 0})
    word = last["kind"] if last["kind"] in ("interrupted", "diverged") else "unfinished"
    return f"{word} at step {last['step']} of {steps}"


def set_apart(runs: Sequence[Run], shown: Callable[[Run], Any]) -> list[tuple[Run, str]]:
    """Each run of a family with ``statistics.set_apart``'s text; ``shown`` is what is shown of a run anyway."""
    texts = statistics.set_apart([run.row for run in runs], [shown(run) for run in runs])
    return list(zip(runs, texts, strict=True))
