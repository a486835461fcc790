"""Runs, read back from their folders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthgrad_lab.families import IMAGES, Kind, kind_of
from synthgrad_lab.reporting.statistics import Told, apart, told
from synthgrad_lab.running.record import Record
from synthgrad_lab.running.versions import FIRST, recorded_version


@dataclass(frozen=True)
class Run:
    """One run as its record tells it."""

    folder: Path
    settings: dict[str, Any]
    environment: dict[str, Any]
    points: list[dict[str, Any]]
    """Of the curve, in order."""
    events: list[dict[str, Any]]
    """The timeline of one step; empty if the run has not ended."""
    result: dict[str, Any] | None
    """None if the run has not ended."""
    state: str
    """In words: finished, interrupted at step 40 of 200, ..."""
    launch: dict[str, Any] | None = None
    """Of a run in stages: how it was cut and where it ran."""
    version: int = FIRST
    """Of its recipe."""

    @property
    def kind(self) -> Kind:
        """What its recipe is about."""
        return kind_of(self.settings.get("recipe"))

    @property
    def classifies(self) -> bool:
        """Whether it is a run on images, in one process."""
        return self.kind is IMAGES and self.launch is None

    @property
    def decides(self) -> Told:
        """All that decides the run and is not its own."""
        launch = {} if self.launch is None else {"launch": self.launch}
        return told({"settings": self.settings, "recipe_version": self.version, **launch})

    @property
    def shown(self) -> tuple[str, int, int, str, int]:
        """What tables and figures show of a run on images anyway."""
        s = self.settings
        images = s["data"] + (", convolutional" if s.get("net") == "cnn" else "")
        return images, s["layers"], s["width"], s["method"], s["steps"]


def runs_under(place: Path) -> list[Path]:
    """The run folders at or below a place; the place itself if there is none, for ``read`` to tell."""
    return sorted(path.parent for path in place.rglob("record.jsonl")) or [place]


def read(folders: Sequence[Path]) -> tuple[list[Run], list[Path]]:
    """Read run folders.

    Args:
        folders: one per run.

    Returns:
        The runs, recurrent ones too, and the folders that hold none.

    Raises:
        FileNotFoundError: if a folder does not exist, or none of them holds a run.
        ValueError: if no folder is given.
    """
    if not folders:
        raise ValueError("nothing to report: no run folder was given")
    if missing := [str(folder) for folder in folders if not folder.is_dir()]:
        raise FileNotFoundError(f"no such folder: {', '.join(missing)}")
    runs = {folder: _read(folder) for folder in dict.fromkeys(folders)}
    if not any(runs.values()):
        raise FileNotFoundError(
            f"nothing to report: {', '.join(map(str, runs))} holds no run (a record.jsonl that starts with "
            "the run's settings); give run folders, or folders of them"
        )
    return [run for run in runs.values() if run], [folder for folder, run in runs.items() if not run]


def _read(folder: Path) -> Run | None:
    record = Record(folder)
    try:
        lines = record.read()
        first = next(line for line in lines if line["kind"] == "settings")
        return Run(
            folder=folder,
            settings=first["settings"],
            environment=first.get("environment", {}),
            points=[line for line in lines if line["kind"] == "point"],
            events=next((line["events"] for line in reversed(lines) if line["kind"] == "timeline"), []),
            result=next((line for line in reversed(lines) if line["kind"] == "result"), None),
            state=_state(lines, first["settings"].get("steps") or first["settings"]["updates"]),
            launch=first.get("launch"),
            version=recorded_version(first),
        )
    except (FileNotFoundError, StopIteration, KeyError, TypeError, UnicodeDecodeError):
        return None  # no record, or not one of ours


def _state(lines: list[dict[str, Any]], steps: int) -> str:
    kinds = [line["kind"] for line in lines]
    if "result" in kinds:
        return "finished"
    last = next((line for line in reversed(lines) if "step" in line), {"kind": "started", "step": 0})
    word = last["kind"] if last["kind"] in ("interrupted", "diverged") else "unfinished"
    return f"{word} at step {last['step']} of {steps}"


def set_apart(runs: Iterable[Run], shown: Callable[[Run], Any]) -> list[tuple[Run, str]]:
    """Each run with the settings in which it differs from others of which the same is shown, as text.

    Args:
        runs: of one kind.
        shown: what a table or figure shows of a run anyway.
    """
    return apart([(run, run.decides) for run in runs], shown)
