"""The command's standard streams: a missing character, reader or disk space ends no run and hides no result.

Nothing heavy is imported here, so that the streams are in place before anything else can fail.
"""

from __future__ import annotations

import codecs
import errno
import io
import logging
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SPELT = {"²": "^2", "±": "+-", "×": "x", "λ": "lambda", "δ": "delta", "…": "...", "−": "-", "–": "-"}
"""ASCII spellings of characters that the command prints; any other becomes an escape like ``\\u03b1``."""


def spelt(error: UnicodeError) -> tuple[str | bytes, int]:
    """The replacement for a character that a stream's encoding lacks, and where encoding continues.

    A byte of a file's name that is not text (a surrogate of Python's) is written unchanged.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character, following = error.object[error.start], error.start + 1
    if "\udc80" <= character <= "\udcff":
        return bytes([ord(character) - 0xDC00]), following
    return SPELT.get(character, character.encode("ascii", "backslashreplace").decode()), following


codecs.register_error("synthgrad.spelt", spelt)


@contextmanager
def standard_streams() -> Iterator[None]:
    """Replace standard output and error by streams that survive faults; streams put there by others stay.

    - If the reader leaves (``| head``), the rest is dropped, and the command continues.
    - If standard output cannot take a result (it is closed, its disk is full), OSError is raised, once.
    - What standard error cannot take is dropped; it never goes to standard output.
    - A closed descriptor is opened, else the next file would get its number, and then what is printed.
    """
    _fill()
    kept = sys.stdout, sys.stderr
    if sys.stdout is sys.__stdout__:
        sys.stdout = _text(1, sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(2, sys.stderr)
    try:
        yield
    finally:
        sys.stderr.flush()
        sys.stdout, sys.stderr = kept


def _fill() -> None:
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest number that is free


def _text(number: int, old: Any) -> io.TextIOWrapper:
    raw = _Raw(number, None if old else OSError(errno.EBADF, "it is closed"))
    encoding = old.encoding if old else "utf-8"
    through, lines = (old.write_through, old.line_buffering) if old else (False, False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding, "synthgrad.spelt", line_buffering=lines, write_through=through
    )


class _Raw(io.FileIO):
    """A standard stream's bytes; after its first fault, which may be there from the start, they are dropped."""

    def __init__(self, number: int, fault: OSError | None):
        super().__init__(number, "wb", closefd=False)
        self.fault = fault
        self.silent = number == 2

    def write(self, data: Any, /) -> int:
        if not self.fault:
            try:
                return self._written(data)
            except OSError as error:
                self.fault = error
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self.fileno())  # for child processes, too
                os.close(nowhere)
                self.silent |= isinstance(error, BrokenPipeError)
        if not self.silent:
            self.silent = True
            raise OSError(f"standard output could not take the result: {self.fault.strerror}")
        return len(data)

    def _written(self, data: Any) -> int:
        while (count := super().write(data)) is None:  # the descriptor does not block, and is full
            select.select([], [self], [])
        return count


@contextmanager
def log_to_stderr(level: int = logging.INFO) -> Iterator[None]:
    """Print the log records of ``synthgrad`` and ``synthgrad_lab`` on standard error, a plain line each."""
    handler = logging.StreamHandler(sys.stderr)
    loggers = [logging.getLogger(name) for name in ("synthgrad", "synthgrad_lab")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, old in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(old)
