"""Groups of runs that repeat one experiment, and each group's numbers."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from synthgrad_lab.feedforward import paper
from synthgrad_lab.feedforward.settings import LABELS, METHODS
from synthgrad_lab.reporting.runs import Run, set_apart
from synthgrad_lab.reporting.statistics import grouped


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


def summarise(runs: Iterable[Run]) -> list[dict[str, Any]]:
    """The numbers of each group of finished runs; empty if no run has finished.

    Args:
        runs: of this family.

    Returns:
        A dict per group: ``data, layers, width, method, steps, settings`` as in ``Key``; ``seeds``, their number;
        ``test_error`` and ``validation_error`` in percent, means over the seeds, with ``test_deviation`` and
        ``validation_deviation`` (n - 1; None for one run); ``paper`` (percent after 500,000 iterations, or None);
        ``updates_per_layer``; ``seconds_per_step`` and ``cost``, the same over Bprop's on the same network and batch
        (None without Bprop); ``notes``, reasons why the group's mean or deviation may mislead.
    """
    finished = groups(run for run in runs if run.result)
    bprop = grouped((run for key, some in finished.items() if key.method == "bprop" for run in some), _work)
    found = []
    for key, members in finished.items():
        row, base = _row(key, members), bprop.get(_work(members[0]))
        cost = row["seconds_per_step"] / _mean(base, "seconds_per_step") if base else None
        found.append({**row, "cost": cost})
    return found


def _work(run: Run) -> tuple[Any, ...]:
    """The settings in which runs must agree, so that their times per step can be compared."""
    s = run.settings
    return *_shown(run)[:3], s["batch"], s["run"]["precision"], s["augment"]


def _row(key: Key, runs: Sequence[Run]) -> dict[str, Any]:
    results = [run.result for run in runs if run.result]
    seeds = [run.settings["seed"] for run in runs]
    notes = []
    if len(images := sorted({str(r.get("images", "")) for r in results})) > 1:
        notes.append(f"images differ: {', '.join(images)}")
    if len(set(seeds)) < len(seeds):
        notes.append("two runs have the same seed: the deviation is too small")
    s = runs[0].settings
    # The paper's table is about synthetic gradients alone.
    mixed = any(any(run.settings["mixing"]["lam"]) for run in runs)
    published = None if mixed else paper.reported(s["data"], s["recipe"], key.method, key.layers, key.width)
    per_layer = zip(*(r["updates_per_layer"] for r in results), strict=True)
    return {
        **key._asdict(),
        "seeds": len(seeds),
        "test_error": _mean(runs, "test_error"),
        "test_deviation": _deviation(runs, "test_error"),
        "validation_error": _mean(runs, "validation_error"),
        "validation_deviation": _deviation(runs, "validation_error"),
        "paper": published,
        "updates_per_layer": [round(statistics.fmean(counts)) for counts in per_layer],
        "seconds_per_step": _mean(runs, "seconds_per_step"),
        "notes": notes,
    }


def _values(runs: Sequence[Run], name: str) -> list[float]:
    return [run.result[name] for run in runs if run.result]


def _mean(runs: Sequence[Run], name: str) -> float:
    return statistics.fmean(_values(runs, name))


def _deviation(runs: Sequence[Run], name: str) -> float | None:
    return statistics.stdev(values) if len(values := _values(runs, name)) > 1 else None
