"""The measure of success at each recurrent task, and the choice of a learning rate by it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from synthgrad_lab.reporting.statistics import grouped, one_experiment
from synthgrad_lab.running.jsonl import Row


class Measure(NamedTuple):
    """How success at a task is measured: its key in points of the curve and in the result, its name in tables."""

    point: str
    result: str
    label: str
    more_is_better: bool = False


MEASURES = {
    "add": Measure("cross_entropy", "cross_entropy", "cross-entropy, nats (floor 0.4545)"),
    "delay": Measure("longest", "longest", "longest delay", True),
    "copy": Measure("longest", "longest", "longest N", True),
    "repeat-copy": Measure("episode_length", "episode_length", "longest episode", True),
    "char-lm": Measure("validation_bits_per_character", "test_bits_per_character", "test bits per character"),
    "seq-mnist": Measure("validation_error", "test_error", "test error %"),
    "line-drawing": Measure("mse", "mse", "squared error"),
}


def best_rate(runs: Sequence[Row], recipe: str) -> list[Row]:
    """The runs at the learning rate that is best on validation data, by the median over the seeds that all rates have.

    Of equally good rates (lengths are whole numbers) it is the one with more seeds, then the lower one.
    """
    rates = grouped(runs, lambda r: r["settings"]["optimizer"]["lr"])
    common = set.intersection(*({r["seed"] for r in each} for each in rates.values()))
    sign = 1 if MEASURES[recipe].more_is_better else -1

    def merit(rate: float) -> tuple[float, int, float]:
        tried = one_experiment(rates[rate])
        value = statistics.median(r["validation"] for r in tried if r["seed"] in common or not common)
        return sign * value, len(tried), -rate

    return rates[max(rates, key=merit)]
