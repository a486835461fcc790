"""Starts the stages' processes quickly: each is forked from a server that has imported torch and little more.

The stages import their own modules after the fork. So they run the code as it is now, and CUDA or threads that a
module starts on import belong to the stage. The server is a fresh interpreter, which inherits nothing from this
process; it is kept for the next launch, unless the environment has changed by then.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import process, util
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

from synthgrad.stages.runners.run_folder import MAX_SOCKET_FOLDER

if "forkserver" in multiprocessing.get_all_start_methods():
    from multiprocessing import forkserver
else:  # Windows: processes are spawned
    forkserver = None

# torch._dynamo: a process imports it with its first optimizer, which takes seconds.
_PRELOADED = ["synthgrad.stages.runners.worker", "torch._dynamo"]
_LOCK = threading.Lock()


@dataclass
class _Server:
    """A fork server, the environment in which it was started, and how many launches use it."""

    fork: Any
    environment: dict[str, str]
    users: int = 0

    def end(self) -> None:
        """Kill the server; it has no children."""
        if self.fork._forkserver_pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self.fork._forkserver_pid, signal.SIGKILL)
            with suppress(FileNotFoundError, ChildProcessError):
                self.fork._stop()


_current_server: _Server | None = None


class ProcessStarter:
    """Starts the processes of one launch.

    Args:
        build: the function that makes a stage.

    Raises:
        ValueError: if another process cannot import the function.
        RuntimeError: if this process is itself a stage's.
    """

    def __init__(self, build: Callable[[int], Any]):
        check_importable(build)
        self.context: Any = multiprocessing.get_context("spawn" if forkserver is None else "forkserver")
        self.server = None if forkserver is None else _server_for_launch(forkserver.ForkServer)

    def start(self, child: Any) -> None:
        """Start a process that was made by ``context``."""
        if self.server is None or forkserver is None:
            child.start()
            return
        with _LOCK:  # multiprocessing itself would use its own server
            usual, forkserver.connect_to_new_process = forkserver.connect_to_new_process, self._connect
            try:
                child.start()
            finally:
                forkserver.connect_to_new_process = usual

    def close(self) -> None:
        """Release the server, when all processes of the launch have ended."""
        if self.server is not None:
            with _LOCK:
                self.server.users -= 1
                if self.server.users == 0 and self.server is not _current_server:
                    self.server.end()

    def _connect(self, fds: Any) -> Any:
        """Connect to a new process of this launch's server; its socket needs a short path."""
        assert self.server is not None
        config: dict[str, Any] = process.current_process()._config  # pyright: ignore[reportAttributeAccessIssue]
        usual = util.get_temp_dir()
        if len(os.fsencode(usual)) > MAX_SOCKET_FOLDER and self.server.fork._forkserver_pid is None:
            config["tempdir"] = tempfile.mkdtemp(prefix="pymp-", dir="/tmp")
            atexit.register(shutil.rmtree, config["tempdir"], ignore_errors=True)
        try:
            return self.server.fork.connect_to_new_process(fds)
        finally:
            config["tempdir"] = usual


def _server_for_launch(make: Callable[[], Any]) -> _Server:
    """The current server, or a new one if the environment has changed since it was started."""
    global _current_server
    with _LOCK:
        environment = _environment()
        if _current_server is None or _current_server.environment != environment:
            if _current_server is not None and _current_server.users == 0:
                _current_server.end()
            _current_server = _Server(make(), environment)
            _current_server.fork.set_forkserver_preload(_PRELOADED)
        _current_server.users += 1
        return _current_server


def _environment() -> dict[str, str]:
    return dict(os.environ)


def check_importable(build: Callable[[int], Any]) -> None:
    """Check that the stages' processes can import the function that makes them.

    Raises:
        ValueError: if build is no function of a module, or of a module without a file.
        RuntimeError: if this process is a stage's, which imports the script.
    """
    if getattr(process.current_process(), "_inheriting", False):
        raise RuntimeError(
            "launch() runs again where a stage imports the script: keep it under if __name__ == '__main__':"
        )
    try:
        content = bytes(ForkingPickler.dumps(build))
    except Exception as error:
        raise ValueError(
            f"build cannot be sent to the stages' processes ({error}); it must be a function of a module, or a "
            "functools.partial of one"
        ) from None
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    if b"__main__" in content and getattr(main, "__spec__", None) is None and not (file and Path(file).exists()):
        raise ValueError(
            "build is of __main__, which has no file here (a notebook, a console, standard input), so no stage's "
            "process can import it: put it into a module's file, and import it from there"
        )
