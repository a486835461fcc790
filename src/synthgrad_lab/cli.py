"""The command ``synthgrad``: finds the command that the words name, runs it, and turns errors into one line each.

Exit codes: 0 success, 1 failure, 2 usage error, 130 interrupted. Imports of this module are light: ``--help`` needs
no torch, and Ctrl-C must be as quiet before the work as during it.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from threading import current_thread, main_thread
from typing import Any

from synthgrad_lab.commands import COMMANDS
from synthgrad_lab.running.streams import log_to_stderr, standard_streams

EXTRAS = {"ray": "ray", "zmq": "stages"}
"""The project's extra that holds a package; all others are in ``lab``."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    # Figures go to files: the backend of a notebook or a desktop is not needed, and may not be installed here.
    os.environ["MPLBACKEND"] = "agg"
    with standard_streams(), log_to_stderr():
        try:
            try:
                return _run(list(sys.argv[1:] if arguments is None else arguments))
            finally:
                sys.stdout.flush()
        except KeyboardInterrupt:
            return _failed("interrupted", 130)
        except OSError as error:
            return _failed(error, 1)


def _run(words: list[str]) -> int:
    try:
        with _uninterrupted():
            if not words or words[0] in ("-h", "--help"):
                print(
                    _help(
                        "synthgrad COMMAND [OPTIONS]",
                        _TEXT,
                        COMMANDS,
                        "synthgrad COMMAND --help explains a command.",
                    )
                )
                return 0
            if words[0] == "--version":
                print(f"synthgrad {version('synthgrad')}")
                return 0
            from synthgrad_lab.commands.words import BadUsage, parse

        try:
            with _uninterrupted():
                found = _found(words)
                if isinstance(found, str):
                    print(found)
                    return 0
                command = parse(*found)
                from synthgrad_lab.running.stops import Interrupted

                if command.heavy:
                    importlib.import_module("torch")
        except ValueError as error:
            return _failed(error, 2)
        except SystemExit as stop:  # of tyro, which has printed help, or what is wrong
            return int(stop.code or 0)
        try:
            command()
        except BadUsage as error:
            return _failed(error, 2)
        except Interrupted as stop:
            return _failed(stop, 130)
        except KeyboardInterrupt:
            return _failed(f"interrupted{command.afterwards}", 130)
        except (OSError, ValueError, ArithmeticError) as error:
            return _failed(error, 1)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package.startswith("synthgrad"):
            raise
        extra = EXTRAS.get(package, "lab")
        return _failed(f"{package} is not installed; pip install 'synthgrad[{extra}]' brings it", 1)
    return 0


def _found(words: list[str]) -> str | tuple[Any, list[str], str]:
    """What tyro is to parse (type, words, name of the program), or a text to print.

    Raises:
        BadUsage: for a word that names nothing.
    """
    from synthgrad_lab.commands.words import BadUsage, Group, nearest

    name, *rest = words
    if name not in COMMANDS:
        raise BadUsage(f"no command {name!r}; {nearest(name, COMMANDS)}")
    module = importlib.import_module(f"synthgrad_lab.commands.{name}")
    prog = f"synthgrad {name}"
    if not hasattr(module, "group"):
        return getattr(module, name.capitalize()), rest, prog
    group: Group = module.group()
    if rest and rest[0] in group.leaves:
        return group.leaves[rest[0]][1](rest[1:]), rest[1:], f"{prog} {rest[0]}"
    kind = group.kind
    if rest and rest[0] in ("-h", "--help"):
        lines = {leaf: text for leaf, (text, _) in group.leaves.items()}
        resume = f"{prog} --resume FOLDER resumes an interrupted run.\n" if group.options else ""
        below = f"{resume}{prog} {kind.upper()} --help shows its options, with their defaults."
        return _help(f"{prog} {kind.upper()} [OPTIONS]", group.text, lines, below)
    if rest and rest[0].startswith("-") and group.options:
        return group.options, rest, prog
    if not rest or rest[0].startswith("-"):
        raise BadUsage(f"{prog}: which {kind}? there are: {', '.join(group.leaves)}")
    hint = "; settings are of the form --name value" if "=" in rest[0] else ""
    raise BadUsage(f"{prog}: unknown {kind} {rest[0]!r}; {nearest(rest[0], group.leaves)}{hint}")


_TEXT = """Train the parts of a network without making them wait for each other,
beside backprop.

Example: synthgrad run mnist-fcn --method cdni --steps 3000"""


def _help(usage: str, text: str, lines: dict[str, str], below: str) -> str:
    """A help page of 80 columns."""
    import textwrap

    width = max(map(len, lines)) + 4
    found = [f"usage: {usage}", "", text, ""]
    for name, meaning in lines.items():
        found += textwrap.wrap(meaning, 80, initial_indent=f"  {name:{width - 2}}", subsequent_indent=" " * width)
    return "\n".join([*found, "", below])


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let Ctrl-C count when the block has ended: cut in two, an import of torch leaves half a NumPy behind."""
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
