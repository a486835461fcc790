"""Where the stages' processes are born: forked, in a moment, from a server that has imported torch and little more.

The stages import their own modules themselves, after the fork: their code is that of now, and CUDA or threads that
a module uses as it is imported are the stage's own. The server is a fresh interpreter, so nothing that this
process has done is in it; it stays for the next launch, unless the environment has changed by then.
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

if "forkserver" in multiprocessing.get_all_start_methods():
    from multiprocessing import forkserver
else:  # Windows: processes are spawned
    forkserver = None

SHORT = 80
"""The longest path of a folder with sockets: a socket's own may have 103 characters (macOS), or 107 (Linux)."""
# torch._dynamo: the first optimizer of a process imports it, which takes seconds.
_PRELOADED = ["synthgrad.stages.runners.worker", "torch._dynamo"]
_LOCK = threading.Lock()


@dataclass
class _Server:
    """A fork server, the environment that it was started in, and how many launches use it."""

    fork: Any
    environment: dict[str, str]
    users: int = 0

    def end(self) -> None:
        """Kill it; it has no children."""
        if self.fork._forkserver_pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self.fork._forkserver_pid, signal.SIGKILL)
            with suppress(FileNotFoundError, ChildProcessError):
                self.fork._stop()


_last: _Server | None = None


class Nursery:
    """Starts the processes of one launch.

    Args:
        build: the stages' function.

    Raises:
        ValueError: if another process cannot import the function.
        RuntimeError: if this is such a process already.
    """

    def __init__(self, build: Callable[[int], Any]):
        importable(build)
        self.context: Any = multiprocessing.get_context("spawn" if forkserver is None else "forkserver")
        self.server = None if forkserver is None else _server(forkserver.ForkServer)

    def start(self, child: Any) -> None:
        """Start a process of ``context``."""
        if self.server is None or forkserver is None:
            child.start()
            return
        with _LOCK:  # multiprocessing would ask its own server
            ask, forkserver.connect_to_new_process = forkserver.connect_to_new_process, self._born
            try:
                child.start()
            finally:
                forkserver.connect_to_new_process = ask

    def close(self) -> None:
        """All its processes have ended."""
        if self.server is not None:
            with _LOCK:
                self.server.users -= 1
                if self.server.users == 0 and self.server is not _last:
                    self.server.end()

    def _born(self, fds: Any) -> Any:
        assert self.server is not None
        config: dict[str, Any] = process.current_process()._config  # pyright: ignore[reportAttributeAccessIssue]
        usual = util.get_temp_dir()
        if len(os.fsencode(usual)) > SHORT and self.server.fork._forkserver_pid is None:
            config["tempdir"] = tempfile.mkdtemp(prefix="pymp-", dir="/tmp")
            atexit.register(shutil.rmtree, config["tempdir"], ignore_errors=True)
        try:
            return self.server.fork.connect_to_new_process(fds)
        finally:
            config["tempdir"] = usual


def _server(make: Callable[[], Any]) -> _Server:
    """The server for a launch in the environment of now."""
    global _last
    with _LOCK:
        environment = _environment()
        if _last is None or _last.environment != environment:
            if _last is not None and _last.users == 0:
                _last.end()
            _last = _Server(make(), environment)
            _last.fork.set_forkserver_preload(_PRELOADED)
        _last.users += 1
        return _last


def _environment() -> dict[str, str]:
    return dict(os.environ)


def importable(build: Callable[[int], Any]) -> None:
    """Refuse at once what no stage's process could import.

    Raises:
        ValueError: if build is no function of a module, or of one that has no file.
        RuntimeError: if this is a stage's process, which imports the script.
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
