"""Tables about stages, computed from gathered records."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from typing import Any

from synthgrad_lab.feedforward.settings import LABELS
from synthgrad_lab.reporting import tables
from synthgrad_lab.reporting.documents import Lines, Table
from synthgrad_lab.reporting.statistics import grouped, mean, spread
from synthgrad_lab.running.jsonl import Row
from synthgrad_lab.stages.projection import projection

ALONE = "in one process"


def learning(records: list[Row]) -> Lines:
    """Error by method and by what happens to messages; the difference from a run in one process."""
    groups = grouped(records, lambda r: (r["method"], r["messages"]))
    rows = []
    for (method, messages), runs in groups.items():
        seeds = {r["seed"] for r in runs}
        alone = [r for r in groups.get((method, ALONE), []) if r["seed"] in seeds]
        rows.append(
            {
                "method": LABELS[method],
                "messages": messages,
                "steps": f"{runs[0]['steps']:,}",
                "seeds": str(len(runs)),
                "test error %": spread(runs),
                "over one process": f"{mean(runs) - mean(alone):+.2f}" if alone and messages != ALONE else "",
                "gradients late by, steps": _mean([stage["staleness"] for r in runs for stage in r["per_stage"]]),
                "gradients used %": f"{100 * _used(runs):.0f}",
            }
        )
    return rows


def _used(runs: list[Row]) -> float:
    """Gradients from which gradient models learnt, per step of the stages that have such a model."""
    stages = [stage for r in runs for stage in r["per_stage"][:-1]]
    return sum(stage["learnt"] for stage in stages) / max(sum(stage["steps"] for stage in stages), 1)


def _mean(values: list[Any]) -> str:
    known = [value for value in values if value is not None and not math.isnan(value)]
    return f"{statistics.fmean(known):.1f}" if known else ""


def schedules(records: list[Row]) -> Lines:
    """Throughput of schedules; ``links`` shows the other rows of the same records."""
    return [
        {
            "schedule": r["schedule"],
            "stages": str(r["stages"]),
            "samples/s": f"{r['samples_per_second']:,.0f}",
            "share of the bound": f"{r['share_of_bound']:.1%}",
            "spread": f"{r['spread']:.1%}" if "spread" in r else "",
            **({"test error %": f"{r['test_error']:.2f}" if r["test_error"] else ""} if "test_error" in r else {}),
        }
        for r in records
        if "schedule" in r
    ]


def links(records: list[Row]) -> Lines:
    """Time that a packet takes to another process."""
    return [{"bytes": f"{r['bytes']:,}", "one way, ms": f"{r['hop_ms']:.2f}"} for r in records if "hop_ms" in r]


FAULTS = {
    "faults": "{:d}",
    **dict.fromkeys(
        ("neighbour_rate", "neighbour_rate_kill", "neighbour_rate_stop", "neighbour_rate_slow"), "{:.3f}"
    ),
    **dict.fromkeys(("recovery_seconds", "undisturbed_error", "error"), "{:.2f}"),
    "error_gap": "{:+.2f}",
    **dict.fromkeys(("steps_lost", "checkpoint_every", "restarts", "left_behind"), "{:d}"),
}
"""Measures of the faults benchmark, and their formats."""


def faults(records: list[Row]) -> Lines:
    """Cost of faults, a column per unlock."""
    return [
        {"": name.replace("_", " "), **{f"unlock={r['unlock']}": form.format(r[name]) for r in records}}
        for name, form in FAULTS.items()
    ]


def _bench(make: Callable[[list[Row]], Lines], name: str, command: str) -> Table:
    """A table of a benchmark's records."""
    file = f"stages/bench-{name}"
    return Table(file, make, f"bench {command} --record results/{file}.jsonl")


TABLES = {
    "stages": Table("stages/stages", learning, "reproduce stages"),
    "bench-emulated": _bench(schedules, "emulated", "stages --emulate"),
    "bench-stages": _bench(schedules, "stages", "stages"),
    "bench-links": _bench(links, "stages", "stages"),
    "bench-faults": _bench(faults, "faults", "faults"),
    "bench-scale": _bench(tables.bench, "scale", "scale"),
    "projection": _bench(projection, "scale", "scale"),
}
