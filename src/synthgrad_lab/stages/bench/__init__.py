"""Benchmarks of stages: throughput beside pipelines, the cost of faults, the cost of more stages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from synthgrad_lab.running.bench import Bar, Bench
from synthgrad_lab.running.jsonl import Row
from synthgrad_lab.running.ranges import Count, FromTwo


@dataclass(frozen=True)
class StagesBench(Bench):
    """Throughput of stages beside the pipeline schedules GPipe, 1F1B and ZBV."""

    emulate: bool = False
    """Compare chains whose compute is emulated by sleeping, instead of two stages with real compute."""
    stages: tuple[FromTwo, ...] = (2, 4, 8)
    """Numbers of stages of the emulated chains."""
    repeats: Count = 3
    """Rounds over the schedules; each number is the median over them."""

    def measure(self, bar: Bar) -> tuple[list[Row], dict[str, Any]]:
        """Measure the schedules; without ``emulate`` also the time that a packet takes."""
        from synthgrad_lab.stages.bench import link, schedules

        if self.emulate:
            runs = 4 * self.repeats * len(self.stages)
            return schedules.bench_emulated(self.stages, self.repeats, bar("runs", runs))
        rows, timelines = schedules.bench_real(self.repeats, bar("runs", 5 * self.repeats))
        return [*rows, *link.bench_links()], timelines


@dataclass(frozen=True)
class FaultsBench(Bench):
    """Cost of faults: stages are killed, stopped and slowed down at random while the others train on."""

    unlock: Literal["complete", "update"] = "complete"
    """complete: stages run on synthetic inputs and wait for no other stage. update: they wait for messages, use old
    ones (replay) while the stage below is down, and wait for a slow stage above."""
    faults: Count = 40
    """Number of faults."""

    def measure(self, bar: Bar) -> tuple[list[Row], dict[str, Any]]:
        """Measure a run with faults and one without."""
        from synthgrad_lab.stages.bench.faults import bench_faults

        return [bench_faults(self.unlock, self.faults, bar("faults", self.faults))], {}


@dataclass(frozen=True)
class ScaleBench(Bench):
    """Cost of each further stage, in chains of emulated stages on this machine."""

    stages: tuple[FromTwo, ...] = (2, 4, 8, 16)
    """Lengths of the chains."""

    def measure(self, bar: Bar) -> tuple[list[Row], dict[str, Any]]:
        """Measure each chain."""
        from synthgrad_lab.stages.bench.scale import bench_scale

        return bench_scale(self.stages, bar("chains", len(self.stages))), {}


BENCHES: dict[str, type[Bench]] = {"stages": StagesBench, "faults": FaultsBench, "scale": ScaleBench}
