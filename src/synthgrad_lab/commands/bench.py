"""The command ``bench``: measure, show, keep, draw."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthgrad_lab.commands.words import Command, Group, Json, group_of, to_write
from synthgrad_lab.families import FAMILIES

NAMES = (
    *("bench", "network", "case", "cell", "units", "width", "T", "method", "depth", "schedule", "stages"),
    *("unlock", "bytes"),
)
"""Columns that say what a row is about; the others are measured."""


@dataclass(frozen=True)
class Bench(Command):
    """Run a benchmark."""

    record: str | None = None
    """Also write the rows to this .jsonl file, and pictures beside it."""
    json: Json = False

    def __call__(self) -> None:
        """Measure, show, keep."""
        from synthgrad_lab.reporting.documents import markdown
        from synthgrad_lab.reporting.tables import bench
        from synthgrad_lab.running.console import Bars
        from synthgrad_lab.running.gather import merge
        from synthgrad_lab.running.jsonl import to_json
        from synthgrad_lab.running.record import environment

        name, benchmark = self.what, getattr(self, "benchmark")  # noqa: B009, the field of `with_options`
        record = None if self.record is None else to_write("record", self.record)
        with Bars() as bars:

            def bar(label: str, total: int) -> Any:
                advance = bars.bar(label, total)
                return lambda done: advance(done, math.nan)

            rows, timelines = benchmark.measure(bar)
        drawn: list[str] = []
        if record:
            kept = [{"bench": name, **row, "environment": environment()} for row in rows]
            merge(record, kept, name=lambda row: tuple(row.get(column) for column in NAMES))
            drawn = _draw(record, timelines)
        if self.json:
            extra = {"drawn": drawn} if record else {}
            print(to_json({"bench": name, **extra, "rows": rows, "environment": environment()}))
        else:
            print(markdown(bench(rows)), end="")

    @property
    def what(self) -> str:
        """The benchmark's name."""
        kind = type(getattr(self, "benchmark"))  # noqa: B009
        return next(name for family in FAMILIES for name, each in family.benches.items() if each is kind)


def _draw(record: Path, timelines: dict[str, Any]) -> list[str]:
    """Draw the schedules beside the record, and write a trace of each for Perfetto."""
    if not timelines:
        return []
    from synthgrad.checkpoint import write_atomically
    from synthgrad_lab.reporting.figures import svg
    from synthgrad_lab.running.jsonl import to_json
    from synthgrad_lab.stages.figures import timelines as drawn
    from synthgrad_lab.stages.trace import chrome

    paths = [record.with_suffix(".svg")]
    write_atomically(paths[0], svg(drawn(timelines, 2.5)))
    for name, events in timelines.items():
        paths.append(record.with_name(f"{record.stem}-{name.replace(', ', '-').replace(' ', '-')}.trace.json"))
        write_atomically(paths[-1], to_json(chrome(events)).encode())
    return [str(path) for path in paths]


def group() -> Group:
    """All benchmarks."""
    text = "Run a benchmark: cost in time, memory, throughput, faults.\n\nExample: synthgrad bench stages --emulate"
    kinds = {name: kind for family in FAMILIES for name, kind in family.benches.items()}
    return group_of(Bench, "benchmark", kinds, text)
