"""Tables about stages, computed from gathered records."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from itertools import product

from synthgrad.stages import Policy
from synthgrad_lab.feedforward.settings import LABELS
from synthgrad_lab.reporting import tables
from synthgrad_lab.reporting.documents import Lines, Table
from synthgrad_lab.reporting.statistics import grouped, mean, spread
from synthgrad_lab.running.jsonl import Row

ALONE = "in one process"


def learning(records: list[Row]) -> Lines:
    """Error by method and by what happens to messages; the difference from a run in one process."""
    groups = grouped(records, lambda r: (r["method"], r["messages"]))
    rows = []
    for (method, messages), runs in groups.items():
        seeds = {r["seed"] for r in runs}
        alone = [r for r in groups.get((method, ALONE), []) if r["seed"] in seeds]
        # A top stage has no gradient model, and learns from no gradient.
        stages, senders = ([s for r in runs for s in r["per_stage"][:end]] for end in (None, -1))
        late = [s["staleness"] for s in stages if s["staleness"] is not None and not math.isnan(s["staleness"])]
        used = sum(s["learnt"] for s in senders) / max(sum(s["steps"] for s in senders), 1)
        rows.append(
            {
                "method": LABELS[method],
                "messages": messages,
                "steps": f"{runs[0]['steps']:,}",
                "seeds": str(len(runs)),
                "test error %": spread(runs),
                "over one process": f"{mean(runs) - mean(alone):+.2f}" if alone and messages != ALONE else "",
                "gradients late by, steps": f"{statistics.fmean(late):.1f}" if late else "",
                "gradients used %": f"{100 * used:.0f}",
            }
        )
    return rows


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
    **{f"neighbour_rate{kind}": "{:.3f}" for kind in ("", "_kill", "_stop", "_slow")},
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


SIZES = (
    ("as measured", 256 * 2**10, 35e3),
    ("a layer of 100 million parameters", 64 * 2**20, 100e6),
)
"""Stages to project: the bytes of a message, and the parameters."""
SECONDS = 0.3
"""A stage's compute per step."""
HOURS = 1000.0
"""Hours of one machine between two faults: pessimistic for hardware, usual for preemptible machines."""


def projection(records: list[Row]) -> Lines:
    """What 16, 100 and 1,000 stages of each size would need, projected from the measured cost of 16.

    The bandwidth is that of one edge, both ways together. Memory beside the parts, checkpoints at the default
    interval, faults per hour, and the steps that are made again after them are those of all stages together.
    """
    most, every = max(records, key=lambda r: r["stages"]), Policy().checkpoint_every
    step = SECONDS + most["cpu_ms_per_step"] / 1000
    rows = []
    for (name, message, parameters), count in product(SIZES, (16, 100, 1000)):
        per_hour, checkpoint = count / HOURS, 12 * parameters  # weights and Adam's two moments, 4 bytes each
        rows.append(
            {
                "stage": name,
                "stages": f"{count:,}",
                "steps/s": f"{1 / step:.1f}",
                "MB/s per edge": _number(2 * message / step / 1e6),
                "memory of processes, GB": _number(count * most["memory_mb"] / 1024),
                "checkpoints, MB/s": _number(count * checkpoint / (every * step) / 1e6),
                "faults per hour": _number(per_hour),
                "steps made again per hour": _number(per_hour * every / 2),
                "of all steps": f"{per_hour * every / 2 / (3600 / step * count):.1e}",
            }
        )
    return rows


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


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
