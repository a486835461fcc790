"""A folder held by one process, on every system."""

from __future__ import annotations

from pathlib import Path
from typing import Any

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None
    import msvcrt


def locked(folder: Path) -> Any:
    """Hold a folder for this process, until it ends, however it ends.

    Raises:
        BlockingIOError: if another process holds it.
    """
    file = (folder / "lock").open("w")
    try:
        _lock(file.fileno())
    except (BlockingIOError, PermissionError):
        file.close()
        raise BlockingIOError(f"{folder} is in use by a run under way; end it, or choose another folder") from None
    return file


def _lock(number: int) -> None:
    """Raise, at once, if another process holds the open file."""
    if fcntl is not None:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        msvcrt.locking(number, msvcrt.LK_NBLCK, 1)  # pyright: ignore
