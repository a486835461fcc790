"""A stage as an actor: its worker's loop in one thread, in another somebody who answers meanwhile."""

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
from synthgrad.stages.runners.worker import Plan, Worker


class Outgoing(NamedTuple):
    """Where a stage's neighbours listen; None where there is none."""

    gradients: str | None
    """Of the stage below."""
    messages: str | None
    """Of the stage above."""


@dataclass(frozen=True)
class Report:
    """How an actor is doing."""

    life: str
    """Its process' own name: another one after every restart."""
    generation: int
    """That it runs as; 0: it has not been told to run yet."""
    messages: str | None
    """Where it listens for messages from below."""
    gradients: str | None
    """Where it listens for gradients from above."""
    counters: dict[str, float]
    """Its ``NUMBERS``, with how many seconds ago it turned; empty before its first turn."""
    pid: int
    clock: float
    """What its monotonic clock is behind the time of day."""


class StageActor:
    """Runs a stage when told to, once; a failure is mended by a new process.

    Args:
        plan: of the run.
        k: the stage.
        host: this machine's address, for its neighbours.
        leave: ends this actor for ever.
    """

    def __init__(self, plan: Plan, k: int, host: Callable[[], str], leave: Callable[[], None]):
        self.plan, self.k, self.leave = plan, k, leave
        self.life, self.generation = os.urandom(8).hex(), 0
        self.counters: dict[str, float] = {}
        self.outgoing = Outgoing(None, None)
        self.running = self.stopping = False
        self.asked = time.monotonic()
        self.hub = Hub(plan.run, plan.keys, plan.policy.limit)
        here, queue = f"tcp://{host()}:*", plan.policy.queue
        self.messages = ZmqInlet(self.hub, here, queue) if k > 0 else None
        self.gradients = ZmqInlet(self.hub, here, queue) if k < plan.stages - 1 else None
        threading.Thread(target=self._leave_when_alone, daemon=True).start()

    def run(self, generation: int, outgoing: Outgoing) -> str:
        """Run the stage until told to stop.

        Args:
            generation: how often the stage has been started, this time counted.
            outgoing: where the neighbours listen.

        Returns:
            The traceback of what ended it, or nothing.
        """
        self.running, self.generation, self.outgoing = True, generation, outgoing
        try:
            self._check_folder()
            # What a socket does is done in this thread alone; the inlets were another's, until it had made them.
            down, up = (None if address is None else ZmqOutlet(self.hub, address) for address in outgoing)
            links = Links(self.messages, down, up, self.gradients)

            def stop() -> bool:
                for outlet, address in zip((down, up), self.outgoing, strict=True):
                    if outlet is not None and address is not None:
                        outlet.redirect(address)
                return self.stopping

            worker = Worker(self.plan, self.k, generation, self.hub, links)
            with closing(worker.lock):
                worker.run(self._tell, stop, lambda: self._unasked() > self.plan.policy.hang_timeout)
        except BaseException:
            return traceback.format_exc()
        finally:
            self.running = False
        return ""

    def status(self, outgoing: Outgoing | None = None) -> Report:
        """How the stage is doing; asked again and again, or else it takes itself for alone.

        Args:
            outgoing: where the neighbours listen by now.
        """
        self.asked = now = time.monotonic()
        if outgoing is not None:
            self.outgoing = outgoing
        told = self.counters
        if told:
            told = {**told, "turned": now - told["turned"]}
        messages, gradients = (inlet and inlet.address for inlet in (self.messages, self.gradients))
        return Report(self.life, self.generation, messages, gradients, told, os.getpid(), time.time() - now)

    def stop(self) -> None:
        """End ``run``, with the checkpoint written."""
        self.stopping = True

    def _tell(self, told: dict[str, float]) -> None:
        self.counters = told

    def _unasked(self) -> float:
        return time.monotonic() - self.asked

    def _leave_when_alone(self) -> None:
        """A detached actor that nobody asks any more would otherwise stay on the cluster for ever."""
        while self.running or self._unasked() < self.plan.policy.idle_exit_after:
            time.sleep(0.5)
        self.leave()

    def _check_folder(self) -> None:
        if not (self.plan.folder / "lock").exists():
            machine = platform.node()
            raise FileNotFoundError(
                f"{self.plan.folder} is not the run's folder on {machine}; choose one that all machines share"
            )
