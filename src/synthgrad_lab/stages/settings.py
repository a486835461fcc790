"""Settings of a launch: how a recipe is cut into stages, and where they run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal

from synthgrad.stages import Faults, Policy
from synthgrad_lab.feedforward.settings import LABELS, METHODS, Settings
from synthgrad_lab.running.ranges import Count, FromTwo, FromZero, Range
from synthgrad_lab.running.settings import Checked, built

__all__ = ["LABELS", "METHODS", "Launch", "Settings", "launch_from"]


@dataclass(frozen=True)
class Launch(Checked):
    """How a recipe is cut into stages, and where they run."""

    stages: FromTwo | None = None
    """Number of stages, of about equal cost; without it one per layer, or as many as ``at`` makes."""
    at: tuple[str, ...] = ()
    """Names of the messages at which the chain is cut, instead of ``stages``; h1 is what layer 1 sends."""
    on: Literal["processes", "simulated", "ray"] = "processes"
    """Where stages run: in processes of this machine; simulated in one process, repeatably; or on a Ray cluster."""
    address: str | None = None
    """Address of a Ray cluster; without it a cluster on this machine, for this run only."""
    hosts: tuple[str, ...] = ()
    """Addresses of machines of a Ray cluster, for the stages in turn; without them Ray chooses."""
    lateness: FromZero = 0
    """Simulation: ticks by which everything that a stage sends is late; a tick is the time of one step."""
    drop: Annotated[float, Range(0, 0.999999)] = 0.0
    """Simulation: probability that a message or gradient is lost."""
    slow: Count = 1
    """Simulation: ticks that a stage needs for a step."""
    crashes: tuple[FromZero, ...] = ()
    """Simulation: ticks at which a stage dies."""
    down: Count = 10
    """Simulation: ticks until a dead stage is restarted."""
    faulty: FromZero | None = None
    """Simulation: the stage that has these faults, counted from 0; without it all of them."""
    policy: Policy = field(default_factory=Policy)

    def __post_init__(self) -> None:
        """Check the ranges, and that no settings contradict each other."""
        super().__post_init__()
        if self.on != "simulated" and (self.faults(2) or self.faulty is not None or self.down != Faults().down):
            raise ValueError("lateness, drop, slow and crashes belong to on=simulated; real stages have their own")
        if self.on == "simulated" and self.faulty is not None and not self.faults(self.faulty + 1):
            raise ValueError(f"faulty={self.faulty} has no fault: give lateness, drop, slow or crashes, too")
        if self.stages is not None and self.at and self.stages != len(set(self.at)) + 1:
            raise ValueError(
                f"stages={self.stages} and at={','.join(self.at)} say different things; give one of them"
            )
        if (self.address is not None or self.hosts) and self.on != "ray":
            raise ValueError("address and hosts belong to a Ray cluster: on=ray")

    def faults(self, stages: int) -> dict[int, Faults]:
        """The faults of a simulation, by stage; ValueError if there is no stage of the number ``faulty``."""
        if self.faulty is not None and self.faulty >= stages:
            raise ValueError(f"faulty={self.faulty}: there are stages 0 to {stages - 1}")
        faults = Faults(**{f.name: getattr(self, f.name) for f in fields(Faults)})
        if faults == Faults(down=self.down):
            return {}
        return dict.fromkeys(range(stages) if self.faulty is None else [self.faulty], faults)


def launch_from(values: Mapping[str, Any]) -> Launch:
    """The launch that a record holds, which may say where it was cut, too.

    Raises:
        ValueError: if the record holds a setting that no longer exists, or a value that is out of range.
    """
    return built(Launch, {name: value for name, value in values.items() if name != "cuts"})
