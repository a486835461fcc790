"""Settings: ``key=value`` words onto a dataclass, with errors that name what was meant."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import inspect
import os
import textwrap
import types
import typing
from typing import Any, TypeVar

C = TypeVar("C")

OWN = ("seed", "out", "data_dir", "threads", "device", "eval_every", "checkpoint_every")
"""Settings that belong to the single run: runs that differ in nothing else are repetitions of one experiment."""
PLACES = ("out", "data_dir", "text")
"""Settings that are paths."""


def located(config: C) -> C:
    """The same settings with their paths absolute: a record is read from other working folders, too."""
    given = {name: getattr(config, name, None) for name in PLACES}
    found = {name: os.path.abspath(path) for name, path in given.items() if path is not None}
    return dataclasses.replace(config, **found)  # pyright: ignore[reportArgumentType]


class BadSetting(ValueError):
    """A word on the command line that fits nothing; its text is for the user as it stands."""


def nearest(word: str, known: typing.Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` or, with nothing near, the list of what there is."""
    known = list(known)
    near = difflib.get_close_matches(word, known, n=2, cutoff=0.5)
    return f"did you mean {' or '.join(map(repr, near))}?" if near else f"there are: {', '.join(known)}"


def words(arguments: typing.Iterable[str]) -> dict[str, str]:
    """Split ``key=value`` words.

    Raises:
        BadSetting: if a word has no ``=`` or a key comes twice.
    """
    pairs: dict[str, str] = {}
    for word in arguments:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise BadSetting(f"{word!r} is not of the form key=value, for instance steps=3000")
        if key in pairs:
            raise BadSetting(f"{key} is given twice: {pairs[key]} and {value}")
        pairs[key] = value
    return pairs


def override(config: C, pairs: dict[str, str]) -> C:
    """A copy of the dataclass with text values converted to their fields' types.

    Raises:
        BadSetting: for an unknown key or a value of the wrong type.
    """
    hints = typing.get_type_hints(type(config))
    changes = {}
    for key, text in pairs.items():
        if key not in hints:
            raise BadSetting(f"unknown setting {key!r}; {nearest(key, hints)}")
        changes[key] = _convert(key, text, hints[key])
    return dataclasses.replace(config, **changes)  # pyright: ignore[reportArgumentType]


def _convert(key: str, text: str, hint: Any) -> Any:
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        allowed = typing.get_args(hint)
        if text not in allowed:
            raise BadSetting(f"{key}={text}: {nearest(text, allowed)}")
        return text
    if origin in (types.UnionType, typing.Union):
        if text.lower() in ("none", ""):
            return None
        return _convert(key, text, next(a for a in typing.get_args(hint) if a is not type(None)))
    if origin is tuple:
        return tuple(_convert(key, word, typing.get_args(hint)[0]) for word in text.split(","))
    if hint is bool:
        if text.lower() not in ("true", "false", "1", "0", "yes", "no"):
            raise BadSetting(f"{key}={text}: wanted true or false")
        return text.lower() in ("true", "1", "yes")
    try:
        if hint is int and not text.strip().lstrip("+-").isdecimal() and float(text).is_integer():
            return int(float(text))  # 1e4 is a fine number of steps
        return hint(text)
    except (ValueError, OverflowError):
        raise BadSetting(f"{key}={text}: wanted a {'whole number' if hint is int else 'number'}") from None


def describe(config: Any) -> list[tuple[str, str, str]]:
    """``(key, default, what it is)`` for every field; what it is stands as a string below the field."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(type(config)))).body[0]
    assert isinstance(tree, ast.ClassDef)
    docs: dict[str, str] = {}
    for field, below in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            match below:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    docs[field.target.id] = " ".join(text.split())
                case _:
                    pass

    def shown(value: Any) -> str:
        return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)

    return [(f.name, shown(getattr(config, f.name)), docs.get(f.name, "")) for f in dataclasses.fields(config)]
