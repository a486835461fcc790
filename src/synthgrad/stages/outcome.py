"""The status of a launch while it runs, its result, and the errors with which it fails."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any, Literal

from synthgrad.stages.counters import Counters

_log = logging.getLogger("synthgrad.stages")
State = Literal["starting", "running", "ended", "down"]


@dataclass(frozen=True)
class Status:
    """How a stage is doing."""

    k: int
    state: State
    """down: dead or hung, and not running again yet."""
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
    """A stage was down, and runs again."""

    k: int
    why: str
    """killed by signal 9, hung, …"""
    at: float
    """Seconds from the launch until the failure was noticed."""
    steps_lost: int
    """Steps that it had made since its last checkpoint."""
    seconds: float
    """From the moment when the failure was noticed until its next step."""


@dataclass
class Outcome:
    """The result of a launch."""

    states: list[dict[str, Any]]
    """The state of each stage, for ``Stage.load_state_dict``."""
    counters: list[Counters]
    restarts: list[Restart] = field(default_factory=list)
    events: list[list[StageEvent]] = field(default_factory=list)
    """The latest part of each stage's timeline."""
    seconds: float = 0.0

    def report_losses(self, steps: int, expected: bool = False) -> Outcome:
        """Log lost steps and packets, and fail if a stage is hardly trained.

        Args:
            steps: of the run.
            expected: whether faults were asked for, as in a simulation: then lost steps are no surprise.

        Returns:
            This outcome.

        Raises:
            StageFailed: if a stage made less than half of the steps for which it was sent messages, or none.
        """
        sent = steps
        for k, counters in enumerate(self.counters):
            made = counters.steps - counters.replayed
            if made < max(1.0, sent / 2) and not expected:
                raise StageFailed(
                    f"stage {k} is hardly trained: it was sent {sent} messages and made {made} steps (missed "
                    f"{counters.missed} of {steps}, refused {counters.refused}); was it killed, or down for long? "
                    "This error's outcome holds the states of all stages; a smaller checkpoint_every loses less",
                    self,
                )
            counts = {
                f"missed {counters.missed} of {steps} steps": counters.missed and not expected,
                f"refused {counters.refused} packets": counters.refused,
                f"learnt nothing {counters.nonfinite} times, from inf or NaN": counters.nonfinite,
            }
            if lost := [text for text, count in counts.items() if count]:
                _log.warning("stage %d has %s", k, "; has ".join(lost))
            sent = max(made - counters.dropped, 0)
        return self


class StageFailed(RuntimeError):
    """A stage fails every time (the text ends with its traceback), or has hardly learnt.

    Args:
        text: what happened.
        outcome: the launch's result, if all stages have ended.
    """

    def __init__(self, text: str, outcome: Outcome | None = None):
        super().__init__(text)
        self.outcome = outcome


class Stopped(Exception):
    """The launch was interrupted (Ctrl-C); its text says which stages stopped with a fresh checkpoint."""
