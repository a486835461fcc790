"""One stage as its supervisor sees it, wherever it runs: restarted when dead or hung, in the end given up."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence

from synthgrad.stages.counters import NUMBERS, Counters, counters_from
from synthgrad.stages.outcome import Restart, StageEvent, StageFailed, State, Status
from synthgrad.stages.runners.worker import Plan, events_of


class Watched(ABC):
    """Judges a stage by what it tells; how to reach it is for the subclass.

    Args:
        plan: of the run.
        k: the stage.
    """

    def __init__(self, plan: Plan, k: int):
        self.plan, self.k = plan, k
        self.numbers: Sequence[float] = [0.0] * len(NUMBERS)
        """What it has told last; ``turned`` on this process' clock."""
        self.generation, self.started, self.looked = 0, 0.0, 0.0
        self.best = self.in_a_row = 0
        self.restarts: list[Restart] = []
        self.out: tuple[str, float, float, int] | None = None  # why, at, when noticed, steps then

    def start(self) -> None:
        """Start it, or start it again."""
        self.generation += 1
        self.started = self.looked = time.monotonic()
        self.begin()

    @abstractmethod
    def begin(self) -> None:
        """Bring it to life as ``generation``."""

    @abstractmethod
    def dead(self) -> str | None:
        """Why it is dead, or None."""

    @abstractmethod
    def kill(self) -> None:
        """End it, since it has hung."""

    @abstractmethod
    def last_words(self) -> str:
        """The traceback that it left."""

    @abstractmethod
    def stop(self) -> None:
        """Ask it to stop, with its checkpoint."""

    @abstractmethod
    def wait(self, seconds: float) -> bool:
        """Wait until it has stopped, at most so long. Whether it has."""

    @abstractmethod
    def end(self) -> None:
        """Kill it if it has not stopped, with all that it has started. It does not come back."""

    @property
    @abstractmethod
    def pid(self) -> int | None:
        """Its process."""

    def look(self, at: float) -> None:
        """See whether it is alive; restart it if not.

        Raises:
            StageFailed: if that has not helped so often.
        """
        told, own, here = self._said()
        if here and self.out is not None and (own["stepped"] or own["ended"]):
            why, since, noticed, steps = self.out
            lost = max(steps - (told.steps - int(own["stepped"])), 0)
            self.restarts.append(Restart(self.k, why, since, lost, time.monotonic() - noticed))
            self.out = None
        if told.steps > self.best:
            self.best, self.in_a_row = told.steps, 0
        now, silence_timeout = time.monotonic(), self.silence_timeout
        if (
            now - self.looked > silence_timeout / 4
        ):  # this process was stopped, or asleep; so, perhaps, was the stage
            self.started = now
        self.looked = now
        why = self.dead()
        if why is None and now - max(own["turned"] if here else 0.0, self.started) > silence_timeout:
            why = "hung"
            self.kill()
        if why is None:
            return
        if self.in_a_row >= self.plan.policy.max_restarts:
            raise StageFailed(self.obituary(why))
        self.in_a_row += 1
        noticed = self.out[2] if self.out else time.monotonic()
        self.out = (why, at, noticed, self.out[3] if self.out else told.steps)
        self.start()

    @property
    def silence_timeout(self) -> float:
        """How long it may be at what it does, before it is taken for hung.

        It says so itself: ``start_within`` for its first step, and its first checkpoint; later ``hang_timeout``, or
        as long as five of its longest steps (of its last checkpoint) took.
        """
        _, own, here = self._said()
        policy = self.plan.policy
        return max(policy.hang_timeout, own["allowed"]) if here else policy.start_within

    def obituary(self, why: str) -> str:
        """What is said of a stage that cannot be helped."""
        told = self.last_words().strip() or "it left no traceback; what it printed is on standard error"
        if why == "hung":
            setting = "hang_timeout" if self._said()[1]["stepped"] else "start_within"
            told = (
                f"it was at one step for more than {self.silence_timeout:g} s, and was killed; if a step takes "
                f"so long, raise the policy's {setting} (now {getattr(self.plan.policy, setting):g})"
            )
        return f"stage {self.k} failed {self.in_a_row + 1} times in a row ({why}):\n{told}"

    def ended(self) -> bool:
        """Whether it has made all its steps; and if it was out, that it is back has been noted."""
        _, own, here = self._said()
        return here and bool(own["ended"]) and self.out is None

    def counters(self) -> Counters:
        """What it has told last."""
        return self._said()[0]

    def events(self) -> list[StageEvent]:
        """Its timeline, once it has stopped."""
        return events_of(self.plan, self.k)

    def status(self) -> Status:
        """How it is doing."""
        told, own, here = self._said()
        state: State = "running" if here else "starting"
        if self.out is not None:
            state = "down"
        if here and own["ended"]:
            state = "ended"
        return Status(self.k, state, self.generation, told, self.pid)

    def _said(self) -> tuple[Counters, dict[str, float], bool]:
        """What it has told last, the numbers besides, and whether they are of its present life."""
        told, own = counters_from(self.numbers)
        return told, own, own["generation"] == self.generation
