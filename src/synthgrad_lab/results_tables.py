"""Tables of docs/results.md about the first experiment and the benchmarks, computed from gathered records."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from synthgrad_lab import paper
from synthgrad_lab.config import SHOWN
from synthgrad_lab.grouping import one_experiment
from synthgrad_lab.tables import plus_minus

Row = dict[str, Any]


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


def every_layer(records: list[Row]) -> list[dict[str, str]]:
    """Test error by network and method, seeds together."""
    groups = grouped(records, lambda r: (r["layers"], r["steps"], r["method"], _linear(r)))
    rows = []
    for (layers, steps, method, linear), runs in sorted(groups.items(), key=_order):
        bprop = groups.get((layers, steps, "bprop", False))
        gap = f"{mean(runs) - mean(bprop):+.2f}" if bprop else ""
        known = paper.reported("mnist", "mnist-fcn", method, layers, 256)
        rows.append(
            {
                "method": SHOWN[method] + (", linear M" if linear else ""),
                "layers": str(layers),
                "steps": f"{steps:,}",
                "seeds": str(len(runs)),
                "test error %": spread(runs, "test_error"),
                "over Bprop": "" if method == "bprop" else gap,
                "validation error %": spread(runs, "validation_error"),
                "paper, 500k steps": "" if known is None else f"{known:.1f}",
            }
        )
    return rows


def demo(records: list[Row]) -> list[dict[str, str]]:
    """All methods at 4 layers and 3,000 steps, for the README."""
    rows = every_layer([r for r in records if _default(r)])
    return [{k: row[k] for k in ("method", "test error %", "paper, 500k steps")} for row in rows]


def quality(records: list[Row]) -> list[dict[str, str]]:
    """Cosine and relative error at the end of training, per interface, seeds averaged."""
    rows = []
    for method in ("dni", "cdni"):
        runs = one_experiment([r for r in records if r["method"] == method and _default(r)])
        for name in runs[0]["quality"] if runs else ():
            row = {"method": f"{SHOWN[method]}, {name}"}
            for measure in runs[0]["quality"][name]:
                row[measure.replace("_", " ")] = f"{statistics.mean(r['quality'][name][measure] for r in runs):.2f}"
            rows.append(row)
    return rows


def bench(records: list[Row]) -> list[dict[str, str]]:
    """A benchmark's rows as they were recorded."""
    rows = [{k: v for k, v in r.items() if k not in ("bench", "environment")} for r in records]
    order = ("network", "case", "stages", "depth", "cell", "units", "T", "method")  # text first
    return [
        {
            k.replace("_", " "): _number(row[k])
            for k in sorted(row, key=lambda k: order.index(k) if k in order else len(order))
        }
        for row in rows
    ]


def _linear(r: Row) -> bool:
    return r["method"] == "cdni" and r["settings"]["model_depth"] == 0


def _default(r: Row) -> bool:
    return (r["layers"], r["steps"]) == (4, 3000) and not _linear(r)


def _order(item: tuple[tuple[Any, ...], Any]) -> tuple[Any, ...]:
    layers, steps, method, linear = item[0]
    return steps, layers, list(SHOWN).index(method), linear


def _number(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)
