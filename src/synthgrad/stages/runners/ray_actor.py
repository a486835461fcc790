"""A stage as a Ray actor: its loop runs in one thread, another thread answers the supervisor's questions."""

from __future__ import annotations

import os
import platform
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

from synthgrad.stages.channels import Links
from synthgrad.stages.channels.zeromq import Hub, ZmqInlet, ZmqOutlet
from synthgrad.stages.runners.plan import Plan
from synthgrad.stages.runners.worker import Worker


class Outgoing(NamedTuple):
    """The addresses at which a stage's neighbours listen; None where it has no neighbour."""

    gradients: str | None
    """Where the stage below listens."""
    messages: str | None
    """Where the stage above listens."""


@dataclass(frozen=True)
class Report:
    """How an actor is doing."""

    process_id: str
    """A random name of its process; another one after every restart."""
    generation: int
    """The generation that it runs as; 0 until it is asked to run."""
    messages: str | None
    """Where it listens for messages from below."""
    gradients: str | None
    """Where it listens for gradients from above."""
    numbers: dict[str, float]
    """Its ``REPORT_FIELDS``, where ``turned`` is how many seconds ago that was; empty before its first turn."""
    pid: int
    clock_offset: float
    """Seconds by which its monotonic clock is behind the time of day."""


class StageActor:
    """Runs a stage once, when asked to; after a failure, it takes a new process.

    Args:
        plan: of the run.
        k: the stage.
        own_address: returns this machine's address, for its neighbours.
        end_actor: ends this actor for good.
    """

    def __init__(self, plan: Plan, k: int, own_address: Callable[[], str], end_actor: Callable[[], None]):
        self.plan, self.k, self.end_actor = plan, k, end_actor
        self.process_id, self.generation = os.urandom(8).hex(), 0
        self.numbers: dict[str, float] = {}
        self.outgoing = Outgoing(None, None)
        self.running = self.stopping = False
        self.last_asked = time.monotonic()
        self.hub = Hub(plan.run, plan.keys, plan.policy.limit)
        here, queue = f"tcp://{own_address()}:*", plan.policy.queue
        self.messages = ZmqInlet(self.hub, here, queue) if k > 0 else None
        self.gradients = ZmqInlet(self.hub, here, queue) if k < plan.stages - 1 else None
        threading.Thread(target=self._end_when_alone, daemon=True).start()

    def run(self, generation: int, outgoing: Outgoing) -> str:
        """Run the stage until asked to stop.

        Args:
            generation: how often the stage has been started, including this time.
            outgoing: where the neighbours listen.

        Returns:
            The traceback of the failure that ended it, or nothing.
        """
        self.running, self.generation, self.outgoing = True, generation, outgoing
        try:
            self._check_folder()
            # From here on only this thread uses the sockets; another one has made the inlets.
            down, up = (None if address is None else ZmqOutlet(self.hub, address) for address in outgoing)
            links = Links(self.messages, down, up, self.gradients)

            def stop() -> bool:
                for outlet, address in zip((down, up), self.outgoing, strict=True):
                    if outlet is not None and address is not None:
                        outlet.redirect(address)
                return self.stopping

            worker = Worker(self.plan, self.k, generation, self.hub, links)
            with closing(worker.lock):
                worker.run(self._keep, stop, lambda: self._seconds_unasked() > self.plan.policy.hang_timeout)
        except BaseException:
            return traceback.format_exc()
        finally:
            self.running = False
        return ""

    def status(self, outgoing: Outgoing | None = None) -> Report:
        """How the stage is doing; if nothing asks for long, the actor takes its supervisor for dead.

        Args:
            outgoing: where the neighbours listen now.
        """
        self.last_asked = now = time.monotonic()
        if outgoing is not None:
            self.outgoing = outgoing
        numbers = self.numbers
        if numbers:
            numbers = {**numbers, "turned": now - numbers["turned"]}
        messages, gradients = (inlet and inlet.address for inlet in (self.messages, self.gradients))
        offset = time.time() - now
        return Report(self.process_id, self.generation, messages, gradients, numbers, os.getpid(), offset)

    def stop(self) -> None:
        """Make ``run`` write its checkpoint and return."""
        self.stopping = True

    def _keep(self, numbers: dict[str, float]) -> None:
        self.numbers = numbers

    def _seconds_unasked(self) -> float:
        return time.monotonic() - self.last_asked

    def _end_when_alone(self) -> None:
        """End the actor when its supervisor is gone: a detached actor would stay on the cluster for ever."""
        while self.running or self._seconds_unasked() < self.plan.policy.idle_exit_after:
            time.sleep(0.5)
        self.end_actor()

    def _check_folder(self) -> None:
        if not (self.plan.folder / "lock").exists():
            machine = platform.node()
            raise FileNotFoundError(
                f"{self.plan.folder} is not the run's folder on {machine}; choose one that all machines share"
            )
