"""What a launch tells while it runs, what it leaves behind, and how it can fail."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from synthgrad.launch.told import Told

State = Literal["starting", "running", "ended", "out"]


@dataclass(frozen=True)
class Status:
    """How a stage is doing."""

    k: int
    state: State
    """out: dead or hung, and not yet back."""
    generation: int
    """How often it has been started."""
    told: Told
    pid: int | None = None


@dataclass(frozen=True)
class Event:
    """Something that a stage did, for a timeline."""

    kind: str
    """forward, backward, update, send, fit or wait."""
    start: float
    """Seconds, on a clock that all processes of a machine share."""
    end: float
    step: int


@dataclass(frozen=True)
class Restart:
    """A stage was out, and came back."""

    k: int
    why: str
    """killed by signal 9, hung, …"""
    at: float
    """Seconds since the launch when it was noticed."""
    steps_lost: int
    """Steps that it had made since its last checkpoint."""
    seconds: float
    """From the notice to its next turn."""


@dataclass
class Outcome:
    """What a launch leaves."""

    states: list[dict[str, Any]]
    """Of every stage, what ``Stage.load_state_dict`` takes."""
    told: list[Told]
    restarts: list[Restart] = field(default_factory=list)
    events: list[list[Event]] = field(default_factory=list)
    """Of every stage, the last of what it did."""
    seconds: float = 0.0


class StageFailed(RuntimeError):
    """A stage fails every time; the text ends with its own traceback."""


class Stopped(Exception):
    """Ctrl-C: every stage has stopped between two steps, with its checkpoint."""
