"""Only one process can lock a folder, on systems with fcntl and without."""

import importlib
import sys
from types import SimpleNamespace

import pytest

from synthgrad.stages.runners import run_folder


def test_a_folder_is_locked_until_its_file_is_closed(tmp_path):
    with (
        run_folder.lock_folder(tmp_path),
        pytest.raises(BlockingIOError, match="in use by a run under way; end it"),
    ):
        run_folder.lock_folder(tmp_path)
    run_folder.lock_folder(tmp_path).close()


def test_without_fcntl_the_package_is_imported_and_locks_too(tmp_path, monkeypatch):
    """As on Windows, where another process' lock is a PermissionError."""
    held = []

    def locking(number, mode, count):
        held.append((mode, count))
        if len(held) > 1:
            raise PermissionError("locked")

    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "fcntl", None)
        patch.setitem(sys.modules, "msvcrt", SimpleNamespace(locking=locking, LK_NBLCK=2))
        importlib.reload(run_folder)
        with run_folder.lock_folder(tmp_path), pytest.raises(BlockingIOError, match="in use by a run under way"):
            run_folder.lock_folder(tmp_path)
    importlib.reload(run_folder)
    assert held == [(2, 1)] * 2
