"""Which version of its recipe a record was made with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from synthgrad_lab.running.jsonl import Row

Today = Callable[[Row], int]
"""The version that the run of a record would have today; a family's ``version_of``."""


def recorded_version(row: Mapping[str, Any]) -> int:
    """The version that a gathered record, or the first line of a run's own, was made with."""
    return row.get("version", 1)


def split(rows: Iterable[Row], today: Today) -> tuple[list[Row], list[Row]]:
    """The records of today's versions, and the older ones."""
    found: tuple[list[Row], list[Row]] = [], []
    for row in rows:
        found[recorded_version(row) != today(row)].append(row)
    return found


def counted(older: Iterable[Row], today: Today) -> str:
    """Older records in words: ``local-loss (version 1, today 2): 6``."""
    counts = Counter(_name(row, today) for row in older)
    return ", ".join(f"{name}: {count}" for name, count in counts.items())


def placed(older: Iterable[Row], today: Today) -> str:
    """The same with their networks: ``local-loss (version 1, today 2) of mnist-fcn 4x/6x, cifar-cnn 3x``."""
    found: dict[str, dict[str, dict[str, None]]] = {}
    for row in older:
        _, recipe, size = place(row)
        found.setdefault(_name(row, today), {}).setdefault(recipe, {})[size] = None
    networks = {name: (f"{recipe} {'/'.join(sizes)}" for recipe, sizes in of.items()) for name, of in found.items()}
    return "; ".join(f"{name} of {', '.join(each)}" for name, each in networks.items())


def place(row: Row) -> tuple[str, str, str]:
    """Method, recipe and size of a record: 4x for layers, T=5 for steps of a chunk."""
    s = row["settings"]
    size = f"T={s['T']}" if "T" in s else f"{s['layers']}x" if "layers" in s else ""
    return s["method"], s["recipe"], size


def _name(row: Row, today: Today) -> str:
    return f"{row['settings']['method']} (version {recorded_version(row)}, today {today(row)})"
