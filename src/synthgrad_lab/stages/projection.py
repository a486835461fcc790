"""What 100 and 1,000 stages would need, projected from the measured cost of 16."""

from __future__ import annotations

from dataclasses import dataclass

from synthgrad.stages import Policy
from synthgrad_lab.running.jsonl import Row


@dataclass(frozen=True)
class StageSize:
    """Size of a stage; messages in bytes."""

    name: str
    step: float
    """Seconds of compute per step."""
    message: float
    """Bytes of a message, one way."""
    parameters: float


HOURS = 1000.0
"""Hours of one machine between two faults: pessimistic for hardware, usual for preemptible machines."""
SIZES = (
    StageSize("as measured", 0.3, 256 * 2**10, 35e3),
    StageSize("a layer of 100 million parameters", 0.3, 64 * 2**20, 100e6),
)
COUNTS = (16, 100, 1000)


def projection(records: list[Row]) -> list[dict[str, str]]:
    """A row per size and number of stages.

    The bandwidth is that of one edge, both ways together. Memory beside the parts, checkpoints at the default
    interval, faults per hour, and the steps that are made again after them are those of all stages together.
    """
    most = max(records, key=lambda r: r["stages"])
    every = Policy().checkpoint_every
    rows = []
    for size in SIZES:
        step = size.step + most["cpu_ms_per_step"] / 1000
        checkpoint = 12 * size.parameters  # weights and Adam's two moments, 4 bytes each
        for count in COUNTS:
            faults = count / HOURS
            rows.append(
                {
                    "stage": size.name,
                    "stages": f"{count:,}",
                    "steps/s": f"{1 / step:.1f}",
                    "MB/s per edge": _number(2 * size.message / step / 1e6),
                    "memory of processes, GB": _number(count * most["memory_mb"] / 1024),
                    "checkpoints, MB/s": _number(count * checkpoint / (every * step) / 1e6),
                    "faults per hour": _number(faults),
                    "steps made again per hour": _number(faults * every / 2),
                    "of all steps": f"{faults * every / 2 / (3600 / step * count):.1e}",
                }
            )
    return rows


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
