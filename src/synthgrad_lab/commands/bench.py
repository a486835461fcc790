"""The command ``synthgrad bench``: measure, show, keep, draw."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from synthgrad_lab.running.gathered import merge
from synthgrad_lab.running.jsonl import to_json
from synthgrad_lab.running.record import environment

Row = dict[str, Any]
Bar = Callable[[int], None]
NAMES = (
    *("bench", "network", "case", "cell", "units", "width", "T", "method", "depth", "schedule", "stages"),
    *("unlock", "bytes"),
)
"""Columns that say what a row is about; the others are measured."""


def do_bench(options: Namespace) -> None:
    """Run a benchmark."""
    from synthgrad_lab.reporting import documents as page
    from synthgrad_lab.reporting.tables import bench
    from synthgrad_lab.running.console import Bars

    told: dict[str, Any] = {}
    with Bars() as bars:

        def bar(name: str, total: int) -> Bar:
            advance = bars.bar(name, total)
            return lambda done: advance(done, float("nan"))

        rows, timelines = BENCHES[options.what](options, bar)
    if options.record:
        kept = [{"bench": options.what, **row, "environment": environment()} for row in rows]
        merge(Path(options.record), kept, name=what_is_measured)
        told["drawn"] = _draw(Path(options.record), timelines)
    if options.what == "faults":
        told |= rows[0]  # one run: its numbers are the result
    if options.json:
        print(to_json({"bench": options.what, **told, "rows": rows, "environment": environment()}))
    else:
        print(page.markdown(bench(rows)), end="")


def what_is_measured(row: Row) -> tuple[Any, ...]:
    """What tells a row of a record from the others: measured once more, it takes the old one's place."""
    return tuple(row.get(name) for name in NAMES)


def _draw(record: Path, timelines: dict[str, Any]) -> list[str]:
    """Beside the record: a picture of the schedules, and a trace for Perfetto of each."""
    if not timelines:
        return []
    from synthgrad.checkpoint import write_atomically
    from synthgrad_lab.reporting.figures import svg
    from synthgrad_lab.stages.trace import chrome, drawn, longest_step

    picture = record.with_suffix(".svg")
    write_atomically(picture, svg(drawn(timelines, 2.5 * longest_step(timelines))))
    paths = [picture]
    for name, events in timelines.items():
        paths.append(record.with_name(f"{record.stem}-{name.replace(', ', '-').replace(' ', '-')}.trace.json"))
        write_atomically(paths[-1], to_json(chrome(events)).encode())
    return [str(path) for path in paths]


def _step(options: Namespace, bar: Any) -> tuple[list[Row], Any]:
    from synthgrad_lab.feedforward.bench.step import bench_step

    rows = []
    for width in options.widths or (256, 1024):
        rows += bench_step(width, options.repeats or 15, bar(f"width {width}", options.repeats or 15))
    return rows, {}


def _methods(options: Namespace, bar: Any) -> tuple[list[Row], Any]:
    from synthgrad_lab.feedforward.bench.methods import bench_methods
    from synthgrad_lab.feedforward.recipes import RECIPES

    return bench_methods(repeats=options.repeats or 15, progress=bar("networks", len(RECIPES))), {}


def _recurrent(options: Namespace, bar: Any) -> tuple[list[Row], Any]:
    from synthgrad_lab.recurrent.bench import CELLS, bench_recurrent

    rows = []
    for units in options.widths or (32, 256):
        rows += bench_recurrent(units, repeats=options.repeats or 15, progress=bar(f"{units} units", len(CELLS)))
    return rows, {}


def _clocks(options: Namespace, bar: Any) -> tuple[list[Row], Any]:
    from synthgrad_lab.clocks.bench import LENGTHS, bench_clocks

    return bench_clocks(progress=bar("T", len(LENGTHS))), {}


def _memory(options: Namespace, bar: Any) -> tuple[list[Row], Any]:
    from synthgrad_lab.feedforward.bench.memory import DEPTHS, bench_memory

    return bench_memory(progress=bar("memory", 2 * len(DEPTHS))), {}


def _stages(options: Namespace, bar: Any) -> tuple[list[Row], Any]:
    from synthgrad_lab.stages.bench import schedules as stages

    repeats = options.repeats or 3
    if options.emulate:
        lengths: Sequence[int] = options.stages or (2, 4, 8)
        return stages.bench_emulated(lengths, repeats, progress=bar("runs", 4 * repeats * len(lengths)))
    rows, timelines = stages.bench_real(repeats, progress=bar("runs", 5 * repeats))
    return [*rows, *stages.bench_links()], timelines


def _faults(options: Namespace, bar: Any) -> tuple[list[Row], Any]:
    from synthgrad_lab.stages.bench.faults import bench_faults

    return [bench_faults(options.unlock, options.faults, progress=bar("faults", options.faults))], {}


def _scale(options: Namespace, bar: Any) -> tuple[list[Row], Any]:
    from synthgrad_lab.stages.bench.scale import bench_scale

    lengths: Sequence[int] = options.stages or (2, 4, 8, 16)
    return bench_scale(lengths, progress=bar("chains", len(lengths))), {}


BENCHES: dict[str, Callable[[Namespace, Any], tuple[list[Row], Any]]] = {
    "step": _step,
    "memory": _memory,
    "methods": _methods,
    "recurrent": _recurrent,
    "clocks": _clocks,
    "stages": _stages,
    "faults": _faults,
    "scale": _scale,
}
