"""The folder of a run: locked for one launch, or temporary; and a folder with a short path for sockets."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from synthgrad import checkpoint

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None
    import msvcrt

MAX_SOCKET_FOLDER = 80
"""The longest path of a folder with sockets: a socket's path may have 103 characters (macOS), or 107 (Linux)."""


@contextmanager
def lock_run_folder(folder: Path, resume: bool, stages: int) -> Iterator[None]:
    """Reserve a run's folder for this launch.

    Raises:
        BlockingIOError: if another launch uses it.
        FileExistsError: if it holds a run, and ``resume`` is False.
        ValueError: if the run in it has another number of stages.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with lock_folder(folder):
        found = len([*folder.glob(f"stage-*/{checkpoint.NAME}")])
        if found and not resume:
            raise FileExistsError(f"{folder} holds a run already; resume it, or choose another folder")
        path = folder / "launch.json"
        before = max(found, stages)
        if found and path.exists():
            try:
                before = json.loads(path.read_text())["stages"]
            except (ValueError, KeyError, TypeError):
                raise ValueError(
                    f"{path} is damaged; remove it if the run has {found} stages, and resume"
                ) from None
        if before != stages:
            raise ValueError(f"{folder} holds a run of {before} stages, not {stages}")
        checkpoint.write_atomically(path, json.dumps({"stages": stages}).encode())
        yield


def lock_folder(folder: Path) -> Any:
    """Lock a folder until the returned file is closed, or this process ends.

    Raises:
        BlockingIOError: if another process has locked it.
    """
    file = (folder / "lock").open("w")
    try:
        _lock(file.fileno())
    except (BlockingIOError, PermissionError):
        file.close()
        raise BlockingIOError(f"{folder} is in use by a run under way; end it, or choose another folder") from None
    return file


def _lock(number: int) -> None:
    """Lock an open file, or raise at once if another process has locked it."""
    if fcntl is not None:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        msvcrt.locking(number, msvcrt.LK_NBLCK, 1)  # pyright: ignore


@contextmanager
def temporary_folder(place: str | None = None) -> Iterator[Path]:
    """A folder that is removed at the end.

    ``TemporaryDirectory`` would fail if a stage still writes while the folder is removed.

    Args:
        place: where it is made, if not in the system's folder for temporary files.
    """
    path = Path(tempfile.mkdtemp(prefix="synthgrad-", **({} if place is None else {"dir": place})))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def socket_folder(stack: ExitStack) -> Path:
    """A private temporary folder whose path is short enough for sockets; in /tmp if the usual one is too long.

    Args:
        stack: removes the folder when it is closed.

    Raises:
        ValueError: if /tmp cannot be used, either.
    """
    usual = stack.enter_context(temporary_folder())
    if len(os.fsencode(usual)) <= MAX_SOCKET_FOLDER:
        return usual
    try:
        return stack.enter_context(temporary_folder("/tmp"))
    except OSError as error:
        raise ValueError(f"{usual} is too long for sockets, and {error}; set TMPDIR to a shorter path") from None
