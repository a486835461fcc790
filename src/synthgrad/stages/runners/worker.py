"""The loop of one stage in a process of its own, wherever that process is."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from synthgrad import checkpoint
from synthgrad.stages.channels import Links
from synthgrad.stages.channels.zeromq import Hub, Keys, ZmqInlet, ZmqOutlet
from synthgrad.stages.counters import NUMBERS, OWN, Turn
from synthgrad.stages.node import Node
from synthgrad.stages.outcome import StageEvent
from synthgrad.stages.policy import Policy
from synthgrad.stages.runners.awake import Awake
from synthgrad.stages.runners.lock import locked
from synthgrad.stages.stage import Stage

EVENTS = 4000
"""What a stage keeps of its timeline."""
_WORDS = 1 << 15  # bytes of a traceback: a connection takes them without a reader


@dataclass(frozen=True)
class Plan:
    """All that every stage of a run knows."""

    build: Callable[[int], Stage]
    stages: int
    steps: int
    policy: Policy
    folder: Path
    run: bytes = field(repr=False)
    sockets: Path | None = None
    keys: Keys | None = None

    def of_stage(self, k: int) -> Path:
        """Stage k's own folder."""
        return self.folder / f"stage-{k}"


def work(plan: Plan, k: int, generation: int, numbers: Any, alive: Any) -> None:
    """Run stage k to its end: what a process of this machine does.

    Args:
        plan: of the run.
        k: the stage.
        generation: how often it has been started, this time counted.
        numbers: shared memory, of this stage; see ``NUMBERS``.
        alive: a connection that ends when the supervisor does, and takes this stage's last words.
    """
    if hasattr(os, "setsid"):
        os.setsid()  # whatever it starts (loaders of data) is of its group, and ends with it
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopping.append(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the supervisor, which stops all
    hub = Hub(plan.run, plan.keys, plan.policy.limit)
    try:
        worker = Worker(plan, k, generation, hub, _ipc_links(plan, k, hub))
        worker.run(lambda told: _tell(numbers, told), lambda: bool(stopping), alive.poll)
    except BaseException:
        words = traceback.format_exc()
        with suppress(OSError):  # its supervisor is gone
            alive.send_bytes(words.encode()[-_WORDS:])
        with suppress(OSError):  # the disk is full
            plan.of_stage(k).mkdir(parents=True, exist_ok=True)
            (plan.of_stage(k) / "error.txt").write_text(words)
        raise SystemExit(1) from None
    finally:
        hub.close()
        if alive.poll() and plan.sockets is not None:  # nobody else is left to tidy up
            with contextlib.suppress(OSError):
                plan.sockets.rmdir()


class Worker:
    """A node, its checkpoints and its timeline.

    Args:
        plan: of the run.
        k: the stage.
        generation: how often it has been started.
        hub: of this process' sockets.
        links: to the neighbours.

    Raises:
        BlockingIOError: if another process works on this stage in the same folder.
    """

    def __init__(self, plan: Plan, k: int, generation: int, hub: Hub, links: Links):
        torch.set_num_threads(plan.policy.threads)
        self.plan, self.generation, self.hub = plan, generation, hub
        self.inlets = [inlet for inlet in (links.messages_in, links.gradients_in) if inlet is not None]
        self.folder = plan.of_stage(k)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.lock = locked(self.folder)
        for torn in self.folder.glob(f".{checkpoint.NAME}.*"):
            torn.unlink()
        self.events: deque[tuple[str, float, float, int]] = deque(maxlen=EVENTS)
        stage = plan.build(k)
        stage.timed = self.timed
        policy = plan.policy
        now = Awake(max(policy.silence_timeout / 2, 2 * policy.heartbeat_interval, 0.1))
        self.node = Node(stage, k, links, plan.steps, policy, generation, now)
        if (self.folder / checkpoint.NAME).exists():
            state = checkpoint.load(self.folder)
            try:
                self.node.load_state_dict(state)
            except (KeyError, TypeError, ValueError, RuntimeError) as error:
                path = self.folder / checkpoint.NAME
                raise ValueError(f"{path} is of another stage, or of another build of it ({error})") from error
        self.stepped, self.longest, self.longest_save = 0, 0.0, policy.start_within / 5

    def run(
        self,
        tell: Callable[[dict[str, float]], None],
        stop: Callable[[], bool],
        orphaned: Callable[[], bool],
    ) -> None:
        """Turn after turn until told to stop; with its checkpoint written.

        Args:
            tell: called after each turn with ``NUMBERS``.
            stop: whether to stop now.
            orphaned: whether nobody is left to tell it when to stop: then it stops when it has had nothing to do
                for ``policy.idle_exit_after`` seconds.
        """
        ended, busy, policy = False, time.monotonic(), self.plan.policy
        self.node.greet()
        with self._beating():
            while not stop():
                began = time.monotonic()
                turn = self.node.turn()
                now = time.monotonic()
                if turn is Turn.STEPPED:
                    self.stepped, busy = self.stepped + 1, now
                    # The first may compile: it counts until the second is made.
                    self.longest = max(now - began, 0.99 * self.longest if self.stepped > 2 else 0.0)
                tell(self.numbers(now))
                if turn is Turn.STEPPED:
                    if self.node.counters.steps % policy.checkpoint_every == 0:
                        self._save(tell)
                    continue
                if self.node.done and not ended:  # what a checkpoint says has ended is never sent again
                    ended = True
                    self._save(tell)
                if now - busy > policy.idle_exit_after and orphaned():
                    break
                self.hub.wait(self.node.waits_for(), policy.heartbeat_interval)
                self._record("wait", now, time.monotonic())
            self._save(tell)
        told = [asdict(StageEvent(*event)) for event in self.events]
        checkpoint.write_atomically(self.folder / "events.json", json.dumps(told).encode())

    def numbers(self, now: float, saves: bool = False) -> dict[str, float]:
        """How it is doing.

        Args:
            now: the time.
            saves: whether it is about to write its checkpoint.
        """
        told, policy = self.node.counters, self.plan.policy
        refused = told.refused + sum(sum(inlet.refused.values()) for inlet in self.inlets)
        longest = self.longest_save if saves else self.longest if self.stepped else policy.start_within / 5
        own = (now, self.stepped, 5 * longest, self.node.done, self.generation)
        return {**vars(told), **dict(zip(OWN, own, strict=True)), "refused": refused}

    def _save(self, tell: Callable[[dict[str, float]], None]) -> None:
        """Write the checkpoint; what is large, or far away, takes longer than a step."""
        began = time.monotonic()
        tell(self.numbers(began, saves=True))
        checkpoint.save(self.folder, self.node.state_dict())
        now = time.monotonic()
        self.longest_save = now - began
        tell(self.numbers(now))

    @contextmanager
    def _beating(self) -> Iterator[None]:
        """While open, the neighbours hear now and then that this stage is alive, also in the middle of a step."""
        every, over = max(min(self.plan.policy.silence_timeout / 4, 1.0), 0.02), threading.Event()

        def heartbeat_interval() -> None:
            while not over.wait(every):
                self.node.post.heartbeat_interval()

        thread = threading.Thread(target=heartbeat_interval, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    @contextmanager
    def timed(self, kind: str) -> Iterator[None]:
        """Add what is done inside to the timeline."""
        start = time.monotonic()
        yield
        self._record(kind, start, time.monotonic())

    def _record(self, kind: str, start: float, end: float) -> None:
        last = self.events[-1] if self.events else None
        if kind == "wait" and last is not None and last[0] == kind:  # one wait, however often it looked up
            self.events[-1] = (kind, last[1], end, last[3])
        else:
            self.events.append((kind, start, end, self.node.counters.clock))


def _ipc_links(plan: Plan, k: int, hub: Hub) -> Links:
    """Sockets in the run's own folder, which only this user can enter; receivers bind."""
    queue, last = plan.policy.queue, plan.stages - 1

    def at(kind: str, stage: int) -> str:
        return f"ipc://{plan.sockets}/{kind}{stage}"

    return Links(
        messages_in=ZmqInlet(hub, at("messages", k), queue) if k > 0 else None,
        gradients_out=ZmqOutlet(hub, at("gradients", k - 1)) if k > 0 else None,
        messages_out=ZmqOutlet(hub, at("messages", k + 1)) if k < last else None,
        gradients_in=ZmqInlet(hub, at("gradients", k), queue) if k < last else None,
    )


def _tell(numbers: Any, told: dict[str, float]) -> None:
    numbers[:] = [float(told[name]) for name in NUMBERS]


def state_of(plan: Plan, k: int) -> dict[str, Any]:
    """A stage's last checkpoint."""
    return checkpoint.load(plan.of_stage(k))


def events_of(plan: Plan, k: int) -> list[StageEvent]:
    """A stage's timeline, once it has stopped."""
    path = plan.of_stage(k) / "events.json"
    return [StageEvent(**event) for event in json.loads(path.read_text())] if path.exists() else []


def fresh_run() -> bytes:
    """16 random bytes, the name of a run."""
    return os.urandom(16)
