"""A run's folder: who owns it, what is in it, and how its run is resumed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from synthgrad_lab.running.jsonl import to_json
from synthgrad_lab.running.record import Record
from synthgrad_lab.running.settings import Settings, flat, located, vary
from synthgrad_lab.running.versions import recorded_version

log = logging.getLogger(__name__)


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Own a folder during a run; the system frees it when the process ends, however it ends.

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
    """The first line of the record of the run in a folder.

    Args:
        folder: the run's.
        staged: whether a run in stages is wanted, or one in one process.

    Raises:
        FileNotFoundError: if there is no run, or one of the other sort.
    """
    wanted, other = ("launch", "run") if staged else ("run", "launch")
    found = begun(folder)
    if not found:
        raise FileNotFoundError(f"{folder} holds no {wanted} (no record.jsonl with its settings)")
    if ("launch" in found) is not staged:
        here = "a run in one process" if staged else "a run in stages"
        raise FileNotFoundError(f"{folder} holds {here}: synthgrad {other} --resume {folder} resumes it")
    return found


def check_version(folder: Path, settings: Settings) -> None:
    """Check that today's code gives the settings of a folder's run the meaning that they had when it began.

    Raises:
        ValueError: if the run was begun with another version of its recipe.
    """
    found = begun(folder) or {}
    if recorded_version(found) != settings.version:
        raise ValueError(
            f"the run in {folder} was begun with version {recorded_version(found)} of its recipe, and the code has "
            f"version {settings.version}: equal settings mean something else now. "
            "Run it from the start with another --out"
        )


def begun(folder: Path) -> dict[str, Any] | None:
    """The first line of the folder's record; None if no run has begun there, or was killed while writing it."""
    record = Record(folder)
    lines = record.read("settings") if record.path.exists() else []
    return lines[0] if lines else None


def ended(folder: Path) -> dict[str, Any] | None:
    """The result of the run in a folder, its record's last line; None if the run has not ended."""
    found = Record(folder).read("result")
    return {key: value for key, value in found[-1].items() if key != "kind"} if found else None


def claim(folder: Path) -> None:
    """Check that a new run may begin in a folder; inside ``owned`` it then holds no record.

    Raises:
        FileExistsError: if the folder holds a run already, or a record of something else.
    """
    check_free(folder)
    Record(folder).path.unlink(missing_ok=True)  # its run was killed while it wrote its first line


def check_free(folder: Path) -> None:
    """The check of ``claim``, before any work is done for a new run.

    Raises:
        FileExistsError: as ``claim``.
    """
    path = Record(folder).path
    if not path.exists():
        return
    if found := begun(folder):
        command = "launch" if "launch" in found else "run"
        raise FileExistsError(
            f"{folder} holds a run already; synthgrad {command} --resume {folder} resumes it, or choose another --out"
        )
    if b"\n" in path.read_bytes():
        raise FileExistsError(f"{folder} holds a {path.name} that is not a run's; choose another --out")


def is_run_of(folder: Path, settings: Settings, **more: Any) -> bool:
    """Whether today's code would make the run in a folder from these settings, wherever the folder lies.

    Args:
        folder: the run's.
        settings: of the run.
        more: what else its first line must hold.
    """
    found = begun(folder)
    if found is None or recorded_version(found) != settings.version:
        return False
    try:
        recorded = type(settings).from_record(found["settings"])
    except (TypeError, ValueError):
        return False  # recorded with settings that no longer exist, or are refused today
    return _text(recorded) == _text(settings) and all(found.get(key) == value for key, value in more.items())


def _text(settings: Settings) -> str:
    return to_json(flat(vary(located(settings), {"out": None})))


def put_aside(folder: Path) -> None:
    """Rename a folder whose run cannot be resumed, after the time.

    Raises:
        BlockingIOError: if a run is under way there.
    """
    with owned(folder):
        kept = folder.with_name(f"{folder.name}.{datetime.now():%Y%m%d-%H%M%S-%f}")
        folder.rename(kept)
    log.info("%s: the run there has other settings or an older recipe; it is now %s", folder.name, kept.name)
