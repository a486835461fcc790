"""Timelines as Chrome traces, which Perfetto opens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from synthgrad.stages.outcome import StageEvent

Timeline = Sequence[Sequence[StageEvent]]
"""Each stage's events."""


def chrome(events: Timeline) -> dict[str, Any]:
    """Events in Chrome's trace-event format: a process per stage, times in microseconds."""
    first = min((e.start for stage in events for e in stage), default=0.0)
    found: list[dict[str, Any]] = []
    for k, stage in enumerate(events):
        of_stage = {"pid": k, "tid": 0}
        found.append({"ph": "M", **of_stage, "name": "process_name", "args": {"name": f"stage {k}"}})
        for e in stage:
            times = {"ts": 1e6 * (e.start - first), "dur": 1e6 * (e.end - e.start)}
            found.append({"ph": "X", **of_stage, "name": e.kind, "args": {"step": e.step}, **times})
    return {"traceEvents": found, "displayTimeUnit": "ms"}
