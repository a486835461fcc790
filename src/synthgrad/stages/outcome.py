"""What a launch tells while it runs, what it leaves behind, and how it can fail."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any, Literal

from synthgrad.stages.counters import Counters

_log = logging.getLogger(__name__)
State = Literal["starting", "running", "ended", "down"]


@dataclass(frozen=True)
class Status:
    """How a stage is doing."""

    k: int
    state: State
    """out: dead or hung, and not yet back."""
    generation: int
    """How often it has been started."""
    counters: Counters
    pid: int | None = None


@dataclass(frozen=True)
class StageEvent:
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
    counters: list[Counters]
    restarts: list[Restart] = field(default_factory=list)
    events: list[list[StageEvent]] = field(default_factory=list)
    """Of every stage, the last of what it did."""
    seconds: float = 0.0

    def judged(self, steps: int, ordered: bool = False) -> Outcome:
        """Say what has been lost, so that it is not lost in silence.

        Args:
            steps: of the run.
            ordered: whether faults were asked for, as in a simulation: then lost steps are no surprise.

        Raises:
            StageFailed: if a stage made less than half of the steps that it was sent, or none.
        """
        sent = steps
        for k, told in enumerate(self.counters):
            made = told.steps - told.replayed
            if made < max(1.0, sent / 2) and not ordered:
                raise StageFailed(
                    f"stage {k} is hardly trained: it was sent {sent} messages and made {made} steps (missed "
                    f"{told.missed} of {steps}, refused {told.refused}); was it killed, or long out? The error's "
                    "outcome has what there is; a smaller checkpoint_every loses less",
                    self,
                )
            counts = {
                f"missed {told.missed} of {steps} steps": told.missed and not ordered,
                f"refused {told.refused} packets": told.refused,
                f"learnt nothing {told.nonfinite} times, since something was not finite": told.nonfinite,
            }
            if lost := [text for text, count in counts.items() if count]:
                _log.warning("stage %d has %s", k, "; has ".join(lost))
            sent = max(made - told.dropped, 0)
        return self


class StageFailed(RuntimeError):
    """A stage fails every time, and the text ends with its own traceback; or it has hardly learnt.

    Args:
        text: what happened.
        outcome: where all stages have ended, what they leave.
    """

    def __init__(self, text: str, outcome: Outcome | None = None):
        super().__init__(text)
        self.outcome = outcome


class Stopped(Exception):
    """Ctrl-C: every stage has stopped between two steps, with its checkpoint."""
