"""Which runs are repetitions of one experiment: those that differ in nothing but what is the single run's own."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any, TypeVar

from synthgrad_lab.families import kind_of, settings_from
from synthgrad_lab.reporting.tables import plus_minus
from synthgrad_lab.running.jsonl import Row, to_json
from synthgrad_lab.running.settings import OWN
from synthgrad_lab.running.versions import recorded_version
from synthgrad_lab.stages.settings import Launch

R = TypeVar("R")
Record = TypeVar("Record", bound=Mapping[str, Any])
Told = dict[str, str]
"""All that decides a run and is not its own, as texts by name."""
OWN_LAUNCH = ("address", "hosts")
"""Settings of a launch that say where it runs."""


def told(record: Mapping[str, Any]) -> Told:
    """What decides the run of a record, its first line or a gathered one, but for what is its own.

    A setting that came later than the record has its default value. Epochs are counted in steps.
    """
    names = ("recipe", "method", "settings", "launch", "recipe_version")
    return dict(_told(json.dumps({name: record[name] for name in names if name in record})))


@lru_cache(4096)
def _told(text: str) -> Told:
    """A table asks for the same record many times."""
    record = json.loads(text)
    named = {name: record[name] for name in ("recipe", "method") if name in record}
    settings = _complete({**named, **record.get("settings", {})})
    found = {name: value for name, value in settings.items() if name not in (*OWN, "epochs")}
    if how := record.get("launch"):
        values = {**asdict(Launch()), **how}
        found |= {f"policy {name}": value for name, value in values.pop("policy").items()}
        found |= {k if k not in found else f"launch {k}": v for k, v in values.items() if k not in OWN_LAUNCH}
    found["recipe version"] = recorded_version(record)
    return {name: _text(value) for name, value in found.items()}


def _complete(settings: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return asdict(settings_from(dict(settings)))
    except (TypeError, ValueError):  # a setting of then is gone, or refused today
        return asdict(kind_of(settings.get("recipe")).settings()) | dict(settings)


def _text(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ",".join(map(_text, value)) if value else "none"
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return value if isinstance(value, str) else to_json(value)


def differing(found: Iterable[Told]) -> list[str]:
    """The names in which they differ, in order."""
    found = list(found)
    names = dict.fromkeys(name for each in found for name in each)
    return [name for name in names if len({each.get(name) for each in found}) > 1]


def apart(found: Sequence[tuple[R, Told]], among: Callable[[R], Any]) -> list[tuple[R, str]]:
    """Each with what sets it apart from those that would else look the same: ``lr=0.1, p_update=0.5``, or nothing.

    Args:
        found: of each, what decides it.
        among: what is shown of it anyway; only where that is equal must more be said.
    """
    alike: dict[Any, list[Told]] = {}
    for each, one in found:
        alike.setdefault(among(each), []).append(one)
    names = {key: differing(many) for key, many in alike.items()}
    return [
        (each, ", ".join(f"{name}={one.get(name, 'none')}" for name in names[among(each)])) for each, one in found
    ]


def newest(records: Iterable[Record]) -> list[Record]:
    """Of the repetitions of each experiment those of the newest version of its recipe, whichever is today's."""
    found = [(record, {**told(record), "recipe version": ""}) for record in records]
    best: dict[str, int] = {}
    for record, one in found:
        best[str(one)] = max(best.get(str(one), 0), recorded_version(record))
    return [record for record, one in found if recorded_version(record) == best[str(one)]]


def one_experiment(records: Sequence[Record]) -> Sequence[Record]:
    """The records, if they are repetitions of one experiment, so that a mean of them is one.

    Raises:
        ValueError: if they differ in a setting that is not a run's own.
    """
    found = [told(record) for record in records]
    if names := differing(found):
        values = "; ".join(
            f"{name}: {', '.join(sorted({each.get(name, 'none') for each in found}))}" for name in names
        )
        cells = ", ".join(str(record.get("cell", "?")) for record in records[:3])
        raise ValueError(f"{cells}{', …' if len(records) > 3 else ''} are no repetitions of one run ({values})")
    return records


def grouped(records: list[Row], key: Callable[[Row], tuple[Any, ...]]) -> dict[tuple[Any, ...], list[Row]]:
    """Records by key, in the order in which the keys come first."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for r in records:
        found.setdefault(key(r), []).append(r)
    return found


def mean(runs: list[Row], name: str = "test_error") -> float:
    """Over the seeds.

    Raises:
        ValueError: if the runs differ in more than their seeds.
    """
    return statistics.fmean(r[name] for r in one_experiment(runs))


def spread(runs: list[Row], name: str = "test_error") -> str:
    """Mean and deviation over the seeds, as text."""
    return plus_minus(mean(runs, name), statistics.stdev(r[name] for r in runs) if len(runs) > 1 else None)
