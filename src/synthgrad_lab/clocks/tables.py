"""The table of the multi-network system, computed from gathered records."""

from __future__ import annotations

import statistics

from synthgrad_lab.clocks.settings import LABELS, METHODS
from synthgrad_lab.reporting.statistics import grouped, spread
from synthgrad_lab.running.jsonl import Row


def table(records: list[Row]) -> list[dict[str, str]]:
    """A row per T and method, means over seeds.

    *digits to Bprop's end*: until A's error on validation digits is what Bprop's was at its end.
    """
    rows = []
    records = sorted(records, key=lambda r: (r["T"], METHODS.index(r["method"])))
    for (T, method), runs in grouped(records, lambda r: (r["T"], r["method"])).items():
        ends = {r["seed"]: r["curve"][-1][1] for r in records if (r["T"], r["method"]) == (T, "bprop")}
        goal = statistics.mean(ends.values()) if ends else None
        rows.append(
            {
                "T": str(T),
                "method": LABELS[method],
                "seeds": str(len(runs)),
                "A: odd miscounted %": spread(runs, "odd_error"),
                "B: 3s miscounted %": spread(runs, "threes_error"),
                "digits to Bprop's end": _reached(runs, goal),
                "of": f"{runs[0]['samples']:,}",
                "updates of A": f"{runs[0]['updates_a']:,}",
                "of B": f"{runs[0]['updates_b']:,}",
            }
        )
    return rows


def _reached(runs: list[Row], goal: float | None) -> str:
    """The mean over the seeds that got there, and how many did, if not all."""
    if goal is None:
        return ""
    firsts = [next((samples for samples, odd, _ in r["curve"] if odd <= goal), None) for r in runs]
    found = [first for first in firsts if first is not None]
    if not found:
        return "not reached"
    return f"{statistics.mean(found):,.0f}" + (f" ({len(found)} of {len(runs)})" if len(found) < len(runs) else "")
