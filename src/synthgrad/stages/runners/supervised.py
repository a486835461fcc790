"""A stage from its supervisor's side, wherever it runs: restarted when it is dead or hung, in the end given up."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from synthgrad.stages.counters import REPORT_FIELDS, Counters, ProcessState, parse_report
from synthgrad.stages.outcome import Restart, StageEvent, StageFailed, State, Status
from synthgrad.stages.runners.plan import Plan


class Outage(NamedTuple):
    """A failure after which the stage has not made a step yet."""

    why: str
    at: float
    """Seconds from the launch to the last failure."""
    noticed: float
    """When the first failure was noticed, on the monotonic clock."""
    steps: int
    """Steps that the stage had made by then."""


class SupervisedStage(ABC):
    """Judges a stage by its reports; a subclass knows how to start it, reach it and end it.

    Args:
        plan: of the run.
        k: the stage.
    """

    def __init__(self, plan: Plan, k: int):
        self.plan, self.k = plan, k
        self.numbers: Sequence[float] = [0.0] * len(REPORT_FIELDS)
        """Its last report; ``turned`` is on this process' clock."""
        self.generation, self.started, self.last_check = 0, 0.0, 0.0
        self.most_steps = self.failures_in_a_row = 0
        self.restarts: list[Restart] = []
        self.outage: Outage | None = None

    def start(self) -> None:
        """Start it, or start it again."""
        self.generation += 1
        self.started = self.last_check = time.monotonic()
        self.spawn()

    @abstractmethod
    def spawn(self) -> None:
        """Start its process as ``generation``."""

    @abstractmethod
    def cause_of_death(self) -> str | None:
        """Why its process has ended; None while it is alive."""

    @abstractmethod
    def kill(self) -> None:
        """Kill its process, because it has hung."""

    @abstractmethod
    def traceback(self) -> str:
        """The traceback of its last failure, or nothing."""

    @abstractmethod
    def stop(self) -> None:
        """Ask it to write its checkpoint and stop."""

    @abstractmethod
    def wait(self, seconds: float) -> bool:
        """Wait until it has stopped, for at most some seconds; returns whether it has."""

    @abstractmethod
    def end(self) -> None:
        """Kill it for good if it has not stopped, with every process that it has started."""

    @property
    @abstractmethod
    def pid(self) -> int | None:
        """Its process."""

    def check(self, at: float) -> None:
        """Check that it is alive, and restart it if not.

        Args:
            at: seconds since the launch.

        Raises:
            StageFailed: if it has failed ``max_restarts`` times in a row already.
        """
        counters, process, current = self._report()
        if current and self.outage is not None and (process.stepped or process.ended):
            why, since, noticed, steps = self.outage
            lost = max(steps - (counters.steps - int(process.stepped)), 0)
            self.restarts.append(Restart(self.k, why, since, lost, time.monotonic() - noticed))
            self.outage = None
        if counters.steps > self.most_steps:
            self.most_steps, self.failures_in_a_row = counters.steps, 0
        now, timeout = time.monotonic(), self.hang_timeout
        if now - self.last_check > timeout / 4:  # this process was stopped or asleep; perhaps the stage was, too
            self.started = now
        self.last_check = now
        why = self.cause_of_death()
        if why is None and now - max(process.turned if current else 0.0, self.started) > timeout:
            why = "hung"
            self.kill()
        if why is None:
            return
        if self.failures_in_a_row >= self.plan.policy.max_restarts:
            raise StageFailed(self.failure_message(why))
        self.failures_in_a_row += 1
        if self.outage is None:
            self.outage = Outage(why, at, time.monotonic(), counters.steps)
        else:
            self.outage = self.outage._replace(why=why, at=at)
        self.start()

    @property
    def hang_timeout(self) -> float:
        """Seconds without a turn after which it counts as hung.

        Before its first report that is ``start_within``, later ``hang_timeout`` or, if longer, the time that the
        stage itself asks for: ``start_within`` for its first step and its first checkpoint, then five times its
        longest step or its last checkpoint.
        """
        _, process, current = self._report()
        policy = self.plan.policy
        return max(policy.hang_timeout, process.allowed) if current else policy.start_within

    def failure_message(self, why: str) -> str:
        """The text of the error with which the launch gives up on the stage."""
        details = self.traceback().strip() or "it left no traceback; what it printed is on standard error"
        if why == "hung":
            setting = "hang_timeout" if self._report()[1].stepped else "start_within"
            details = (
                f"it was at one step for more than {self.hang_timeout:g} s, and was killed; if a step takes "
                f"that long, raise the policy's {setting} (now {getattr(self.plan.policy, setting):g})"
            )
        return f"stage {self.k} failed {self.failures_in_a_row + 1} times in a row ({why}):\n{details}"

    def ended(self) -> bool:
        """Whether it has made all its steps and, after an outage, its restart has been recorded."""
        _, process, current = self._report()
        return current and bool(process.ended) and self.outage is None

    def counters(self) -> Counters:
        """The counters in its last report."""
        return self._report()[0]

    def events(self) -> list[StageEvent]:
        """Its timeline, once it has stopped."""
        return self.plan.load_events(self.k)

    def status(self) -> Status:
        """How it is doing."""
        counters, process, current = self._report()
        state: State = "running" if current else "starting"
        if self.outage is not None:
            state = "down"
        if current and process.ended:
            state = "ended"
        return Status(self.k, state, self.generation, counters, self.pid)

    def _report(self) -> tuple[Counters, ProcessState, bool]:
        """Its last report, and whether it comes from its current process."""
        counters, process = parse_report(self.numbers)
        return counters, process, process.generation == self.generation
