"""Which version of its recipe a record was made with, and which records are today's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from synthgrad_lab.families import kind_of
from synthgrad_lab.stages.settings import VERSIONS as LAUNCHED

Row = dict[str, Any]
FIRST = 1
"""The version of a record that names none."""


def version_of(settings: Mapping[str, Any], launched: bool = False) -> int:
    """The version that today's code gives a run with these settings.

    Args:
        settings: of the run; ``recipe`` and ``method`` decide.
        launched: whether it runs in stages, whose code has versions of its own: either's step is one of the sum.
    """
    method, recipe = settings.get("method", ""), settings.get("recipe")
    versions = kind_of(recipe).versions
    own = versions.get(f"{recipe} {method}", versions.get(method, FIRST))
    return own + LAUNCHED.get(method, FIRST) - FIRST if launched else own


def recorded_version(row: Mapping[str, Any]) -> int:
    """The version that a record was made with: a gathered one, or the first line of a run's own."""
    return row.get("recipe_version", FIRST)


def todays_version(row: Mapping[str, Any]) -> int:
    """The version that the same run would have today."""
    return version_of({**row, **row.get("settings", {})}, "launch" in row)


def is_todays(row: Mapping[str, Any]) -> bool:
    """Whether a record means what today's code would make of its settings; a measured time always does."""
    return "bench" in row or recorded_version(row) == todays_version(row)


def split(rows: Iterable[Row]) -> tuple[list[Row], list[Row]]:
    """Today's records, and the others."""
    rows = list(rows)
    return [row for row in rows if is_todays(row)], [row for row in rows if not is_todays(row)]


def told(others: Iterable[Row]) -> str:
    """Which records are not today's, in words: ``local-loss (version 1, today 2): 6``."""
    counts = Counter(_name(row) for row in others)
    return ", ".join(f"{name}: {count}" for name, count in counts.items())


def told_where(others: Iterable[Row]) -> str:
    """The same with the networks: ``local-loss (version 1, today 2) of mnist-fcn 4x/6x, cifar-cnn 3x``."""
    found: dict[str, dict[str, dict[str, None]]] = {}
    for row in others:
        _, recipe, size = where(row)
        found.setdefault(_name(row), {}).setdefault(recipe, {})[size] = None
    networks = {name: (f"{recipe} {'/'.join(sizes)}" for recipe, sizes in of.items()) for name, of in found.items()}
    return "; ".join(f"{name} of {', '.join(each)}" for name, each in networks.items())


def where(row: Row) -> tuple[str, str, str]:
    """Method, recipe and size of a record: 4x for layers, T=5 for steps of a chunk."""
    found = {**row, **row.get("settings", {})}
    size = f"{row['layers']}x" if "layers" in row else f"T={row['T']}" if "T" in row else ""
    return str(found.get("method", "?")), str(found.get("recipe", "?")), size


def _name(row: Row) -> str:
    return f"{where(row)[0]} (version {recorded_version(row)}, today {todays_version(row)})"
