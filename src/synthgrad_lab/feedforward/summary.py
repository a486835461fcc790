"""Groups of runs that repeat one experiment, each group's numbers, and the report's table of them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from synthgrad_lab.feedforward import paper
from synthgrad_lab.feedforward.settings import LABELS, METHODS
from synthgrad_lab.reporting.runs import Run, set_apart
from synthgrad_lab.reporting.statistics import grouped, plus_minus
from synthgrad_lab.running.jsonl import Row

Cost = Mapping[str, float] | None
"""Seconds per step over Bprop's, by method or its label, measured with the methods in turn; methods that are not in it
keep the ratio of their runs' own times."""
VALIDATION = "validation error %"
COMMON = {"data": "{}", "layers": "{} layers", "width": "width {}", "steps": "{} steps", "seeds": "{} seeds"}
"""Columns that stand once, above the table, where all rows agree in them."""


class Key(NamedTuple):
    """A group of runs that repeat one experiment: they differ in their seeds, but in no setting that decides a run."""

    data: str
    """The images; also the kind of net, where it is convolutional."""
    layers: int
    width: int
    method: str
    steps: int
    settings: str = ""
    """Other settings, as text, that tell the group from groups that are equal in the fields above."""

    @property
    def name(self) -> str:
        """The group's name within its network."""
        return label(self.method, self.settings)

    @property
    def network(self) -> str:
        """The network in words."""
        return f"{self.data}, {self.layers} layers, width {self.width}"


def label(method: str, settings: str = "") -> str:
    """A method's name in tables and figures, with settings that tell a group from others."""
    name = LABELS.get(method, method)
    return f"{name} ({settings})" if settings else name


def groups(runs: Iterable[Run]) -> dict[Key, list[Run]]:
    """Runs by group, ordered by data, network, method (as in ``METHODS``), steps and settings; then by seed."""
    found = grouped(set_apart(list(runs), _shown), lambda pair: Key(*_shown(pair[0]), pair[1]))
    order = {method: place for place, method in enumerate(METHODS)}
    keys = sorted(found, key=lambda key: (*key[:3], order.get(key.method, len(order)), *key[3:]))
    return {key: sorted((run for run, _ in found[key]), key=lambda run: run.settings["seed"]) for key in keys}


def _shown(run: Run) -> tuple[str, int, int, str, int]:
    """The settings that tables and figures show of every run."""
    s = run.settings
    data = s["data"] + (", convolutional" if s.get("net") == "cnn" else "")
    return data, s["layers"], s["width"], s["method"], s["steps"]


def summarise(runs: Iterable[Run]) -> list[Row]:
    """The numbers of each group of finished runs; empty if no run has finished.

    Returns:
        A dict per group: ``data, layers, width, method, steps, settings`` as in ``Key``; ``seeds``, their number;
        ``test_error`` and ``validation_error`` in percent, means over the seeds, with ``test_deviation`` and
        ``validation_deviation`` (n - 1; None for one run); ``paper`` (percent after 500,000 iterations, or None);
        ``updates_per_layer``; ``seconds_per_step`` and ``cost``, the same over Bprop's on the same network and batch
        (None without Bprop); ``notes``, reasons why the group's mean or deviation may mislead.
    """
    finished = groups(run for run in runs if run.result)
    bprop = grouped((run for key, some in finished.items() if key.method == "bprop" for run in some), _work)
    return [_row(key, members, bprop.get(_work(members[0]), ())) for key, members in finished.items()]


def _work(run: Run) -> tuple[Any, ...]:
    """The settings in which runs must agree, so that their times per step can be compared."""
    s = run.settings
    return *_shown(run)[:3], s["batch"], s["run"]["precision"], s["augment"]


def _row(key: Key, runs: Sequence[Run], bprop: Sequence[Run]) -> Row:
    s, seeds, results = runs[0].settings, {run.settings["seed"] for run in runs}, _results(runs)
    notes = []
    if len(images := sorted({str(r.get("images", "")) for r in results})) > 1:
        notes.append(f"images differ: {', '.join(images)}")
    if len(seeds) < len(runs):
        notes.append("two runs have the same seed: the deviation is too small")
    # The paper's table is about synthetic gradients alone.
    mixed = any(any(run.settings["mixing"]["lam"]) for run in runs)
    seconds = _mean(runs, "seconds_per_step")
    per_layer = zip(*(r["updates_per_layer"] for r in results), strict=True)
    return {
        **key._asdict(),
        "seeds": len(runs),
        "test_error": _mean(runs, "test_error"),
        "test_deviation": _deviation(results, "test_error"),
        "validation_error": _mean(runs, "validation_error"),
        "validation_deviation": _deviation(results, "validation_error"),
        "paper": None if mixed else paper.reported(s["data"], s["recipe"], key.method, key.layers, key.width),
        "updates_per_layer": [round(statistics.fmean(counts)) for counts in per_layer],
        "seconds_per_step": seconds,
        "notes": notes,
        "cost": seconds / _mean(bprop, "seconds_per_step") if bprop else None,
    }


def _results(runs: Iterable[Run]) -> list[Row]:
    return [run.result for run in runs if run.result]


def _mean(runs: Iterable[Run], name: str) -> float:
    return statistics.fmean(result[name] for result in _results(runs))


def lines(rows: Sequence[Row], cost: Cost = None) -> list[dict[str, str]]:
    """Each row of ``summarise`` as text by column name, without the columns in which all rows agree."""
    measured = {label(method): value for method, value in (cost or {}).items()}
    agreed = _common(rows)

    def text(row: Row) -> dict[str, str]:
        first = {**row, "method": label(row["method"])}
        relative, updates = measured.get(first["method"], row["cost"]), row["updates_per_layer"]
        return {
            **{name: str(first[name]) for name in ("data", "layers", "width", "method") if name not in agreed},
            "test error %": plus_minus(row["test_error"], row["test_deviation"]),
            f"paper ({paper.ITERATIONS // 1000}k it.)": "" if row["paper"] is None else f"{row['paper']:.1f}",
            VALIDATION: plus_minus(row["validation_error"], row["validation_deviation"]),
            **{name: str(first[name]) for name in ("steps", "seeds") if name not in agreed},
            **({"settings": row["settings"]} if any(each["settings"] for each in rows) else {}),
            # Layer 1 first; one number if all layers had as many.
            "updates per layer": " ".join(map(str, updates if len(set(updates)) > 1 else updates[:1])),
            "s/step × Bprop": "" if relative is None else f"{relative:.2f}",
        }

    return [text(row) for row in rows]


def heading(rows: Sequence[Row]) -> str:
    """The line above the table: the values in which all rows agree, and the meaning of ±."""
    parts = list(_common(rows).values())
    if any(row["test_deviation"] is not None for row in rows):
        parts.append("mean ± standard deviation over the seeds")
    return ", ".join(parts) if rows else "no run has finished yet"


def _common(rows: Sequence[Row]) -> dict[str, str]:
    """The values in which all rows agree, in words, by column name."""
    agreed = {name: found.pop() for name in COMMON if len(found := {row[name] for row in rows}) == 1}
    words = {name: COMMON[name].format(value) for name, value in agreed.items()}
    return {**words, "seeds": "1 seed"} if agreed.get("seeds") == 1 else words


def _deviation(rows: Sequence[Row], name: str) -> float | None:
    return statistics.stdev(row[name] for row in rows) if len(rows) > 1 else None
