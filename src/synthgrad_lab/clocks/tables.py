"""The table of the multi-network system, made from gathered records."""

from __future__ import annotations

import statistics

from synthgrad_lab.clocks.settings import LABELS, METHODS
from synthgrad_lab.reporting.documents import Lines, Table
from synthgrad_lab.reporting.statistics import grouped, spread
from synthgrad_lab.reporting.tables import bench
from synthgrad_lab.running.jsonl import Row


def by_method(records: list[Row]) -> Lines:
    """A row per T and method, means over seeds.

    *digits to Bprop's end*: digits seen until A's error on validation digits is Bprop's at its end.
    """
    rows = []
    records = sorted(records, key=lambda r: (r["T"], METHODS.index(r["method"])))
    groups = grouped(records, lambda r: (r["T"], r["method"]))
    for (T, method), runs in groups.items():
        ends = [r["curve"][-1][1] for r in groups.get((T, "bprop"), [])]
        rows.append(
            {
                "T": str(T),
                "method": LABELS[method],
                "seeds": str(len(runs)),
                "A: odd miscounted %": spread(runs, "odd_error"),
                "B: 3s miscounted %": spread(runs, "threes_error"),
                "digits to Bprop's end": _reached(runs, statistics.mean(ends)) if ends else "",
                "of": f"{runs[0]['samples']:,}",
                "updates of A": f"{runs[0]['updates_a']:,}",
                "of B": f"{runs[0]['updates_b']:,}",
            }
        )
    return rows


def _reached(runs: list[Row], goal: float) -> str:
    """The mean over the seeds that reach the goal, and their number, if not all do."""
    firsts = [next((samples for samples, odd, _ in r["curve"] if odd <= goal), None) for r in runs]
    found = [first for first in firsts if first is not None]
    if not found:
        return "not reached"
    return f"{statistics.mean(found):,.0f}" + (f" ({len(found)} of {len(runs)})" if len(found) < len(runs) else "")


TABLES = {
    "clocks": Table("clocks/clocks", by_method, "reproduce clocks"),
    "bench-clocks": Table("clocks/bench-clocks", bench, "bench clocks --record results/clocks/bench-clocks.jsonl"),
}
