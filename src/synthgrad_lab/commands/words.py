"""Words on the command line into dataclasses, by tyro."""

from __future__ import annotations

import dataclasses
import difflib
import io
import os
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from synthgrad_lab.running.settings import Checked

Json = Annotated[bool, tyro.conf.arg(help="Print one JSON object on standard output, and nothing else.")]


class BadUsage(ValueError):
    """A mistake on the command line; its text is for the user as it stands."""


@dataclass(frozen=True)
class Command(Checked):
    """A command: a subclass's fields are its options, its docstring is its help, a call does the work."""

    def __call__(self) -> None:
        """Do what the command does."""
        raise NotImplementedError

    afterwards = ""
    """What Ctrl-C leaves behind, for the message."""
    heavy = True
    """Whether the command needs torch."""


Leaf = Callable[[Sequence[str]], Any]
"""The type of a command, given the words that follow its name: ``tyro.cli`` makes a ``Command`` of it."""


@dataclass(frozen=True)
class Group:
    """Commands that begin with the same word: ``synthgrad run RECIPE``."""

    text: str
    """Help: what these commands do, and an example."""
    kind: str
    """What the next word is: a recipe, an experiment, ..."""
    leaves: Mapping[str, tuple[str, Leaf]]
    """Help and type, by the next word."""
    options: type[Command] | None = None
    """What the words mean where they begin with an option: ``synthgrad run --resume FOLDER``."""


def with_options(base: type[Command], name: str, options: Any, text: str = "") -> Any:
    """The command ``base`` with a field ``name`` whose own fields are options without a prefix.

    Args:
        base: the command.
        name: of the field.
        options: a dataclass instance: the defaults.
        text: the help.
    """
    hint = Annotated[type(options), tyro.conf.arg(name="")]
    made = dataclasses.make_dataclass(
        base.__name__, [(name, hint, dataclasses.field(default=options))], bases=(base,), frozen=True
    )
    made.__doc__ = text or base.__doc__
    return made


def group_of(base: type[Command], name: str, kinds: Mapping[str, type[Any]], text: str) -> Group:
    """A command for each class: its fields are options, its docstring is the help.

    Args:
        base: the command; an instance of the class is its field ``name``.
        name: of the field, and what help calls the next word.
        kinds: classes by that word.
        text: the group's help.
    """

    def leaf(kind: type[Any]) -> tuple[str, Leaf]:
        docs = kind.__doc__ or ""
        return docs.split("\n")[0], lambda words: with_options(base, name, kind(), docs)

    return Group(text, name, {word: leaf(kind) for word, kind in kinds.items()})


def parse(kind: Any, words: Sequence[str], prog: str) -> Any:
    """A command from its words.

    Raises:
        SystemExit: with 0 after ``--help``, with 2 for an option that does not exist or a value of another type.
        ValueError: for a value that is out of range.
    """
    shown = io.StringIO()
    try:
        with redirect_stdout(shown):
            return tyro.cli(kind, args=list(words), prog=prog, config=(tyro.conf.FlagCreatePairsOff,))
    finally:
        for line in shown.getvalue().splitlines():  # tyro wraps its boxes, but not what stands above them
            print(textwrap.fill(line, 80, break_long_words=False, break_on_hyphens=False) if line[80:] else line)


def chosen(words: Sequence[str]) -> dict[str, str]:
    """The options among the words, by name, before anything is known of them: ``{"method": "dni"}``."""
    found = {}
    for word, following in zip(words, [*words[1:], ""], strict=False):
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            found[name.replace("-", "_")] = value if equals else following
    return found


def nearest(word: str, known: Iterable[str]) -> str:
    """``did you mean 'x'?`` or, if nothing is near, the list of what there is."""
    known = list(known)
    near = difflib.get_close_matches(word, known, n=2, cutoff=0.5)
    return f"did you mean {' or '.join(map(repr, near))}?" if near else f"there are: {', '.join(known)}"


def to_write(option: str, path: str, folder: bool = False) -> Path:
    """A file or folder that is to be written, refused before the work; a link stands for what it leads to.

    Raises:
        BadUsage: if it cannot be written.
    """
    place = Path(os.path.realpath(path) if os.path.islink(path) else path)
    if place.exists() and not (place.is_dir() if folder else place.is_file()):
        here = "folder" if place.is_dir() else "file" if place.is_file() else "device"
        raise BadUsage(f"--{option}: {path} is a {here}; wanted a {'folder' if folder else 'file'}'s name")
    above = next(each for each in (place / "file" if folder else place).absolute().parents if each.exists())
    if not above.is_dir():
        raise BadUsage(f"--{option}: {path}: {above} is a file, not a folder")
    if not os.access(above, os.W_OK | os.X_OK):
        raise BadUsage(f"--{option}: {path}: the folder {above} cannot be written; choose another place")
    return place
