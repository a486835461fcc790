"""Runs read back from their folders, gathered into groups of seeds, and the numbers of each group."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from synthgrad_lab.feedforward import paper
from synthgrad_lab.feedforward.settings import LABELS, METHODS
from synthgrad_lab.reporting.runs import Run, read, set_apart

Key = tuple[str, int, int, str, int, str]
"""A group: data (and kind of net), layers, width, method, steps, and the settings that set it apart from groups
that are equal in these. Its runs differ in nothing but what is a single run's own: they are repetitions."""


def shown(method: str, settings: str = "") -> str:
    """A method's name in tables and figures, with the settings that set a group apart."""
    name = LABELS.get(method, method)
    return f"{name} ({settings})" if settings else name


def groups(runs: Iterable[Run]) -> dict[Key, list[Run]]:
    """Runs by group, the groups in the order of data, network, method (as in ``METHODS``), steps, settings."""
    found: dict[Key, list[Run]] = {}
    for run, settings in set_apart(runs, lambda run: run.shown):
        found.setdefault((*run.shown, settings), []).append(run)

    def place(key: Key) -> tuple[Any, ...]:
        order = METHODS.index(key[3]) if key[3] in METHODS else len(METHODS)
        return *key[:3], order, *key[3:]

    return {key: sorted(found[key], key=lambda r: r.settings["seed"]) for key in sorted(found, key=place)}


def rows(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """The numbers of each group of finished runs.

    Args:
        folders: run folders; those without a finished run are left out, so there may be no row.

    Returns:
        A dict per group: ``data``, ``layers``, ``width``, ``method``, ``steps``; ``settings`` (what else sets it
        apart, as text; mostly nothing); ``seeds`` (how many);
        ``test_error`` and ``validation_error`` in percent, means over the seeds, with ``test_deviation`` and
        ``validation_deviation`` (n - 1; None for one run); ``paper`` (percent after 500,000 iterations, or
        None); ``updates_per_layer``; ``seconds_per_step`` and ``cost``, the same over Bprop's on the same
        network and batch (None without Bprop); ``notes``, what makes a group less than repetitions.

    Raises:
        FileNotFoundError: as ``read``.
        ValueError: as ``read``.
    """
    return summarise(read(folders)[0])


def summarise(runs: Iterable[Run]) -> list[dict[str, Any]]:
    """``rows`` of runs that are read already; empty if none is finished."""
    finished = groups(run for run in runs if run.result and run.classifies)
    bprop: dict[tuple[Any, ...], list[float]] = {}
    for key, members in finished.items():
        if key[3] == "bprop":
            times = [run.result["seconds_per_step"] for run in members if run.result]
            bprop.setdefault(_work(members[0]), []).extend(times)
    found = []
    for key, members in finished.items():
        row, base = _row(key, members), statistics.fmean(bprop.get(_work(members[0]), [0]))
        found.append({**row, "cost": row["seconds_per_step"] / base if base else None})
    return found


def _work(run: Run) -> tuple[Any, ...]:
    """What makes two methods' times per step comparable: network, batch, arithmetic."""
    return *run.shown[:3], *(run.decides.get(name) for name in ("batch", "precision", "augment"))


def _mixes(run: Run) -> bool:
    """Whether true gradients are mixed in: not what the paper's table is about."""
    lam = run.settings.get("lam", 0)
    return any(lam) if isinstance(lam, list | tuple) else lam > 0


def _row(key: Key, runs: list[Run]) -> dict[str, Any]:
    data, layers, width, method, steps, settings = key
    results = [run.result for run in runs if run.result]
    seeds = [run.settings["seed"] for run in runs]

    def mean(name: str) -> float:
        return statistics.fmean(r[name] for r in results)

    def deviation(name: str) -> float | None:
        return statistics.stdev(r[name] for r in results) if len(results) > 1 else None

    notes = []
    if len(images := sorted({str(r.get("images", "")) for r in results})) > 1:
        notes.append(f"images differ: {', '.join(images)}")
    if len(set(seeds)) < len(seeds):
        notes.append("a seed came twice: the deviation is too small")
    first = runs[0].settings
    published = paper.reported(first["data"], first.get("recipe", ""), method, layers, width)
    per_layer = zip(*(r["updates_per_layer"] for r in results), strict=True)
    return {
        **{"data": data, "layers": layers, "width": width, "method": method, "steps": steps},
        **{"settings": settings, "seeds": len(seeds)},
        "test_error": mean("test_error"),
        "test_deviation": deviation("test_error"),
        "validation_error": mean("validation_error"),
        "validation_deviation": deviation("validation_error"),
        "paper": None if any(_mixes(run) for run in runs) else published,
        "updates_per_layer": [round(statistics.fmean(counts)) for counts in per_layer],
        "seconds_per_step": mean("seconds_per_step"),
        "notes": notes,
    }
