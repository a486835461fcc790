"""A run's folder: who owns it, what is in it, and the one way to begin again there: ``resume=``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from synthgrad_lab.families import AnySettings, settings_from
from synthgrad_lab.running.jsonl import to_json
from synthgrad_lab.running.record import Record, note
from synthgrad_lab.running.settings import located
from synthgrad_lab.running.versions import recorded_version, version_of


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Own a folder for the time of a run; the system gives it back when the process ends, however it ends.

    Raises:
        BlockingIOError: if another run owns it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "lock", timeout=0):
            yield
    except Timeout:
        raise BlockingIOError(
            f"{folder} is in use by a run under way; wait for its end or stop it, or choose another folder"
        ) from None


def first_line(folder: Path, staged: bool = False) -> dict[str, Any]:
    """The first line of the record of the run in a folder, checked: today's code can go on with that run.

    Args:
        folder: the run's.
        staged: whether a run in stages is wanted, or one in one process.

    Raises:
        FileNotFoundError: if there is no run, or one of the other sort.
        ValueError: if it was begun with another version of its recipe.
    """
    wanted, other = ("launch", "run") if staged else ("run", "launch")
    found = begun(folder)
    if not found:
        raise FileNotFoundError(f"{folder} holds no {wanted} (no record.jsonl with its settings)")
    if ("launch" in found) is not staged:
        here = "a run in one process" if staged else "a run in stages"
        raise FileNotFoundError(f"{folder} holds {here}: synthgrad {other} resume={folder} goes on with it")
    now = version_of(found["settings"], staged)
    if not ended(folder) and recorded_version(found) != now:
        raise ValueError(
            f"the run in {folder} was begun with version {recorded_version(found)} of its recipe, and the code has "
            f"version {now}: equal settings mean something else now. Run it from the start with another out="
        )
    return found


def begun(folder: Path) -> dict[str, Any] | None:
    """The first line of the folder's record; none if no run has begun there, or was killed while writing it."""
    record = Record(folder)
    lines = record.read("settings") if record.path.exists() else []
    return lines[0] if lines else None


def ended(folder: Path) -> dict[str, Any] | None:
    """The result of the run in a folder, as its record's last line; none if it has not ended."""
    found = Record(folder).read("result")
    return {key: value for key, value in found[-1].items() if key != "kind"} if found else None


def claim(folder: Path) -> None:
    """See that a new run may begin in a folder; inside ``owned`` it then holds no record.

    Raises:
        FileExistsError: if the folder holds a run already, or a record that is none of ours.
    """
    refuse_taken(folder)
    Record(folder).path.unlink(missing_ok=True)  # its run was killed while it wrote its first line


def refuse_taken(folder: Path) -> None:
    """The look that ``claim`` takes, before any work is done for a new run.

    Raises:
        FileExistsError: as ``claim``.
    """
    path = Record(folder).path
    if not path.exists():
        return
    if found := begun(folder):
        command = "launch" if "launch" in found else "run"
        raise FileExistsError(
            f"{folder} holds a run already; synthgrad {command} resume={folder} goes on with it, "
            "or choose another out="
        )
    if b"\n" in path.read_bytes():
        raise FileExistsError(f"{folder} holds a {path.name} that is not a run's; choose another out=")


def is_run_of(folder: Path, settings: AnySettings, **more: Any) -> bool:
    """Whether the run in a folder is what today's code would run with these settings, wherever the folder lies.

    Args:
        folder: the run's.
        settings: of the run.
        more: what else its first line must hold.
    """
    found = begun(folder)
    if found is None or recorded_version(found) != version_of(asdict(settings), "launch" in found):
        return False
    try:
        told = settings_from(found["settings"])
    except (TypeError, ValueError):
        return False  # a setting of then is gone, or refused today
    return _told(told) == _told(settings) and all(found.get(key) == value for key, value in more.items())


def _told(settings: AnySettings) -> str:
    return to_json({**asdict(located(settings)), "out": None})


def put_aside(folder: Path) -> None:
    """Rename a folder whose run cannot be gone on with, after the time.

    Raises:
        BlockingIOError: if a run is under way there.
    """
    with owned(folder):
        kept = folder.with_name(f"{folder.name}.{datetime.now():%Y%m%d-%H%M%S-%f}")
        folder.rename(kept)
    note(f"{folder.name}: what was there has other settings or an older recipe, and is now {kept.name}")
