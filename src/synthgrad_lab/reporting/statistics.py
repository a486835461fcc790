"""Groups of records that repeat one experiment, and their means; knows no family."""

import statistics
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, TypeVar

import pandas as pd

from synthgrad_lab.running.jsonl import Row, to_json
from synthgrad_lab.running.settings import OWN, flat
from synthgrad_lab.running.versions import recorded_version

R = TypeVar("R")


def grouped(rows: Iterable[R], key: Callable[[R], Hashable]) -> dict[Any, list[R]]:
    """Rows by key, in the order in which the keys come first."""
    found: dict[Any, list[R]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return found


def decisive(rows: Iterable[Row]) -> pd.DataFrame:
    """A row of texts per record: its version, and its settings except the single run's own and where it runs."""
    values = (
        flat({**row["settings"], "launch": row.get("launch") or {}, "version": recorded_version(row)})
        for row in rows
    )
    found = pd.DataFrame([{name: _text(v) for name, v in each.items()} for each in values])
    return found.drop(columns=[*OWN, "launch.address", "launch.hosts"], errors="ignore").fillna("none")


def differing(rows: Iterable[Row]) -> pd.DataFrame:
    """The columns of ``decisive`` in which the records differ."""
    frame = decisive(rows)
    return frame.loc[:, frame.nunique() > 1] if len(frame) else frame


def set_apart(rows: Sequence[Row], shown: Sequence[Hashable]) -> list[str]:
    """For each record the settings that tell it from others with the same ``shown``: ``model.depth=0``, or ""."""
    texts = [""] * len(rows)
    for places in grouped(range(len(rows)), lambda i: shown[i]).values():
        frame = differing([rows[i] for i in places])
        for i, (_, values) in zip(places, frame.iterrows(), strict=True):
            texts[i] = ", ".join(f"{name}={value}" for name, value in values.items())
    return texts


def newest(rows: Sequence[Row]) -> list[Row]:
    """Of the repetitions of each experiment, those of the newest version of its recipe, whichever is today's."""
    if not rows:
        return []
    frame = decisive(rows).drop(columns="version")
    versions = pd.Series([recorded_version(row) for row in rows])
    best = versions.groupby([frame[name] for name in frame]).transform("max")
    return [row for row, version, most in zip(rows, versions, best, strict=True) if version == most]


def one_experiment(rows: Sequence[Row]) -> Sequence[Row]:
    """The records, if they repeat one experiment, so that their mean is meaningful.

    Raises:
        ValueError: if they differ in a setting that is not the single run's own.
    """
    frame = differing(rows)
    if len(frame.columns):
        values = "; ".join(f"{name}: {', '.join(sorted(set(frame[name])))}" for name in frame)
        names = ", ".join(str(row.get("run", "?")) for row in rows[:3])
        raise ValueError(f"{names}{', …' if len(rows) > 3 else ''} do not repeat one run ({values})")
    return rows


def mean(rows: Sequence[Row], name: str = "test_error") -> float:
    """Mean over the seeds of ``one_experiment``."""
    return statistics.fmean(row[name] for row in one_experiment(rows))


def median(rows: Sequence[Row], name: str) -> float:
    """Median over the seeds of ``one_experiment``."""
    return statistics.median(row[name] for row in one_experiment(rows))


def spread(rows: Sequence[Row], name: str = "test_error") -> str:
    """Mean and standard deviation (n - 1) over the seeds of ``one_experiment``, as ``plus_minus`` writes them."""
    return plus_minus(mean(rows, name), statistics.stdev(row[name] for row in rows) if len(rows) > 1 else None)


def plus_minus(value: float, spread: float | None) -> str:
    """``1.52 ± 0.04``, or ``1.52`` for a single run."""
    return f"{value:.2f}" if spread is None else f"{value:.2f} ± {spread:.2f}"


def _text(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ",".join(map(_text, value)) if value else "none"
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return "none" if value is None else value if isinstance(value, str) else to_json(value)
