"""The command ``synthgrad``: its exit codes, and what it says when something fails.

Imports of this module are light: torch takes a second or more, in which Ctrl-C must be as quiet as later.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import current_thread, main_thread

from synthgrad_lab.running.streams import standard_streams

EXTRAS = {"ray": "ray", "zmq": "stages"}
"""Which of the project's extras has a package; all others are in ``lab``."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code (0 well, 1 failed, 2 wrong words, 130 interrupted)."""
    # Figures go to files: the backend of a notebook or a desktop is not needed, and may not be installed here.
    os.environ["MPLBACKEND"] = "agg"
    with standard_streams():
        try:
            try:
                return _obeyed(arguments)
            finally:
                sys.stdout.flush()
        except KeyboardInterrupt:
            return _failed("interrupted", 130)
        except OSError as error:
            return _failed(error, 1)


def _obeyed(arguments: Sequence[str] | None) -> int:
    try:
        with _uninterrupted():
            from synthgrad_lab.commands.arguments import parser
            from synthgrad_lab.running.loop import Interrupted
            from synthgrad_lab.running.settings import BadSetting

        options = parser().parse_args(arguments)
        try:
            options.do(options)
        except BadSetting as error:
            return _failed(error, 2)
        except Interrupted as stop:
            return _failed(stop, 130)
        except KeyboardInterrupt:
            return _failed(f"interrupted{options.afterwards}", 130)
        except (OSError, ValueError, ArithmeticError) as error:
            return _failed(error, 1)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package.startswith("synthgrad"):
            raise
        extra = EXTRAS.get(package, "lab")
        return _failed(f"{package} is not installed; pip install 'synthgrad[{extra}]' brings it", 1)
    return 0


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C counts when the block has ended: torch goes on where it cuts an import in two, with half a NumPy."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler or current_thread() is not main_thread():
        yield
        return
    came: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if came:
        raise KeyboardInterrupt


def _failed(why: object, code: int) -> int:
    print(f"synthgrad: {why}", file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
