"""All that decides a launch beside its recipe's settings, and which word on the command line belongs where."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from synthgrad.stages import Faults, Policy
from synthgrad_lab.running.ranges import THREADS, refuse_number, refuse_outside
from synthgrad_lab.running.settings import BadSetting, describe, override

Place = Literal["processes", "simulated", "ray"]
VERSIONS: dict[str, int] = {}
"""The version of each method's runs in stages, beside that of its recipes; 1 where none is given. See
``synthgrad_lab.feedforward.settings``."""


@dataclass(frozen=True)
class Launch:
    """How a recipe is cut into stages, and where they run."""

    stages: int | None = None
    """How many, of about equal cost; none: one per layer, or as many as at= says."""
    at: tuple[str, ...] = ()
    """Instead of stages: the messages that are cut, by name, with commas between; h1 is what layer 1 sends."""
    on: Place = "processes"
    """processes of this machine; simulated, in one process and repeatable; ray, a cluster."""
    address: str | None = None
    """Of a Ray cluster (on=ray); none: one on this machine, for this run only."""
    hosts: tuple[str, ...] = ()
    """Of a Ray cluster: machines for the stages in turn, by address, commas between; none: Ray spreads them."""
    lateness: int = 0
    """Of a simulation: ticks by which whatever a stage sends comes late; a tick is a step."""
    drop: float = 0.0
    """Of a simulation: the probability that a message or gradient is lost."""
    slow: int = 1
    """Of a simulation: a stage makes a step every so many ticks."""
    crashes: tuple[int, ...] = ()
    """Of a simulation: ticks at which a stage dies, with commas between."""
    down: int = 10
    """Of a simulation: ticks until a dead stage is back."""
    faulty: int | None = None
    """Of a simulation: which stage has these faults, from 0; none: every one."""
    policy: Policy = field(default_factory=Policy)

    def __post_init__(self) -> None:
        """Refuse what cannot be run, or contradicts itself."""
        refuse_outside(self)
        refuse_number("threads", self.policy.threads, THREADS, whole=True)  # of every stage
        if self.on != "simulated" and (self.faults(2) or self.faulty is not None or self.down != Faults().down):
            raise ValueError("lateness, drop, slow and crashes belong to on=simulated; real stages have their own")
        if self.on == "simulated" and self.faulty is not None and not self.faults(self.faulty + 1):
            raise ValueError(f"faulty={self.faulty} has no fault: give lateness, drop, slow or crashes, too")
        if self.stages is not None and self.at and self.stages != len(set(self.at)) + 1:
            raise ValueError(
                f"stages={self.stages} and at={','.join(self.at)} say different things; give one of them"
            )
        if (self.address is not None or self.hosts) and self.on != "ray":
            raise ValueError("address= and hosts= are of a Ray cluster: on=ray")

    def faults(self, stages: int) -> dict[int, Faults]:
        """What goes wrong, by stage.

        Raises:
            ValueError: if there is no stage of the number that ``faulty`` names.
        """
        if self.faulty is not None and self.faulty >= stages:
            raise ValueError(f"faulty={self.faulty}: there are stages 0 to {stages - 1}")
        names = [f.name for f in dataclasses.fields(Faults)]
        faults = Faults(**{name: getattr(self, name) for name in names})
        if faults == Faults(down=self.down):
            return {}
        return dict.fromkeys(range(stages) if self.faulty is None else [self.faulty], faults)


def launch_from(values: dict[str, Any]) -> Launch:
    """As a record has it."""
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return Launch(**{**values, "policy": Policy(**values["policy"])})


def divided(pairs: dict[str, str]) -> tuple[Launch, dict[str, str]]:
    """The launch that the words ask for, and the words that are the recipe's.

    Raises:
        BadSetting: for a value of the wrong type, or one that contradicts another.
    """
    own = {f.name for f in dataclasses.fields(Launch)} - {"policy"}
    of_policy = {f.name for f in dataclasses.fields(Policy)}
    words = dict(pairs)
    try:
        policy = override(Policy(), {key: words.pop(key) for key in pairs if key in of_policy})
        launch = override(Launch(policy=policy), {key: words.pop(key) for key in pairs if key in own})
    except ValueError as error:
        raise BadSetting(str(error)) from None
    return launch, words


def described() -> list[tuple[str, str, str]]:
    """Every word of a launch, its default and what it is."""
    return [line for line in (*describe(Launch()), *describe(Policy())) if line[0] != "policy"]
