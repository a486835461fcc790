"""Tables about stages, computed from gathered records."""

from __future__ import annotations

import math
import statistics
from typing import Any

from synthgrad_lab.feedforward.settings import LABELS
from synthgrad_lab.reporting.statistics import grouped, mean, spread
from synthgrad_lab.running.jsonl import Row


def learning(records: list[Row]) -> list[dict[str, str]]:
    """Error by method and what happens to messages; the difference from a run in one process."""
    groups = grouped(records, lambda r: (r["method"], r["cell"].split("--")[1]))
    rows = []
    for (method, arm), runs in groups.items():
        seeds = {r["seed"] for r in runs}
        alone = [r for r in groups.get((method, "in one process"), []) if r["seed"] in seeds]
        gap = mean(runs) - mean(alone) if alone and runs is not alone else None
        told = [stage for r in runs for stage in r["per_stage"]]
        rows.append(
            {
                "method": LABELS[method],
                "messages": arm,
                "steps": f"{runs[0]['steps']:,}",
                "seeds": str(len(runs)),
                "test error %": spread(runs),
                "over one process": "" if gap is None or arm == "in one process" else f"{gap:+.2f}",
                "gradients late by, steps": _mean([stage["staleness"] for stage in told]),
                "gradients used %": f"{100 * _used(runs):.0f}",
            }
        )
    return rows


def _used(runs: list[Row]) -> float:
    """Of the gradients that stages with a stage above could have had."""
    stages = [stage for r in runs for stage in r["per_stage"][:-1]]
    return sum(stage["learnt"] for stage in stages) / max(sum(stage["steps"] for stage in stages), 1)


def _mean(values: list[Any]) -> str:
    known = [value for value in values if value is not None and not math.isnan(value)]
    return f"{statistics.fmean(known):.1f}" if known else ""


def schedules(records: list[Row]) -> list[dict[str, str]]:
    """Throughput of schedules beside each other; the rows about links are left to ``links``."""
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


def links(records: list[Row]) -> list[dict[str, str]]:
    """What a packet's way to another process takes."""
    return [{"bytes": f"{r['bytes']:,}", "one way, ms": f"{r['hop_ms']:.2f}"} for r in records if "hop_ms" in r]


def faults(records: list[Row]) -> list[dict[str, str]]:
    """What faults cost, a column per unlock."""
    shown = {
        "faults": "{:d}",
        "neighbour_rate": "{:.3f}",
        "neighbour_rate_kill": "{:.3f}",
        "neighbour_rate_stop": "{:.3f}",
        "neighbour_rate_slow": "{:.3f}",
        "recovery_seconds": "{:.2f}",
        "undisturbed_error": "{:.2f}",
        "error": "{:.2f}",
        "error_gap": "{:+.2f}",
        "steps_lost": "{:d}",
        "checkpoint_every": "{:d}",
        "restarts": "{:d}",
        "left_behind": "{:d}",
    }
    return [
        {"": name.replace("_", " "), **{f"unlock={r['unlock']}": form.format(r[name]) for r in records}}
        for name, form in shown.items()
    ]
