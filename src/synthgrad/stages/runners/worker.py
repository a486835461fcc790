"""The loop of one stage in a process of its own: turns, reports to the supervisor, checkpoints, a timeline."""

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
from dataclasses import asdict
from typing import Any

import torch

from synthgrad import checkpoint
from synthgrad.stages.channels import Links
from synthgrad.stages.channels.zeromq import Hub, ZmqInlet, ZmqOutlet
from synthgrad.stages.counters import REPORT_FIELDS, ProcessState
from synthgrad.stages.neighbour import ListeningClock
from synthgrad.stages.node import Node, TurnResult
from synthgrad.stages.outcome import StageEvent
from synthgrad.stages.runners.plan import Plan
from synthgrad.stages.runners.run_folder import lock_folder

MAX_EVENTS = 4000
"""The most events of a stage's timeline that are kept."""
_MAX_TRACEBACK = 1 << 15  # bytes: a connection takes them without a reader


def work(plan: Plan, k: int, generation: int, numbers: Any, supervisor: Any) -> None:
    """Run stage k to its end: the main function of its process on this machine.

    Args:
        plan: of the run.
        k: the stage.
        generation: how often the stage has been started, including this time.
        numbers: shared memory for this stage's reports; see ``REPORT_FIELDS``.
        supervisor: a connection, which takes a traceback, and ends when the supervisor does.
    """
    if hasattr(os, "setsid"):
        os.setsid()  # the processes that it starts (data loaders) are in its group, and end with it
    stop_signals: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stop_signals.append(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the supervisor, which stops all stages
    hub = Hub(plan.run, plan.keys, plan.policy.limit)
    try:
        worker = Worker(plan, k, generation, hub, _ipc_links(plan, k, hub))
        worker.run(lambda report: _write_report(numbers, report), lambda: bool(stop_signals), supervisor.poll)
    except BaseException:
        text = traceback.format_exc()
        with suppress(OSError):  # the supervisor is gone
            supervisor.send_bytes(text.encode()[-_MAX_TRACEBACK:])
        with suppress(OSError):  # the disk is full
            plan.stage_folder(k).mkdir(parents=True, exist_ok=True)
            plan.traceback_file(k).write_text(text)
        raise SystemExit(1) from None
    finally:
        hub.close()
        if supervisor.poll() and plan.sockets is not None:  # without a supervisor, the last stage tidies up
            with contextlib.suppress(OSError):
                plan.sockets.rmdir()


class Worker:
    """Runs a node turn by turn, and writes its checkpoints and its timeline.

    Args:
        plan: of the run.
        k: the stage.
        generation: how often it has been started.
        hub: the sockets of this process.
        links: to the neighbours.

    Raises:
        BlockingIOError: if another process works on this stage in the same folder.
        ValueError: if the checkpoint in the folder does not fit the stage.
    """

    def __init__(self, plan: Plan, k: int, generation: int, hub: Hub, links: Links):
        torch.set_num_threads(plan.policy.threads)
        self.plan, self.k, self.generation, self.hub = plan, k, generation, hub
        self.inlets = [inlet for inlet in (links.messages_in, links.gradients_in) if inlet is not None]
        self.folder = plan.stage_folder(k)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.lock = lock_folder(self.folder)
        for incomplete in self.folder.glob(f".{checkpoint.NAME}.*"):
            incomplete.unlink()
        self.events: deque[tuple[str, float, float, int]] = deque(maxlen=MAX_EVENTS)
        stage = plan.build(k)
        stage.timed = self.timed
        policy = plan.policy
        now = ListeningClock(max(policy.silence_timeout / 2, 2 * policy.heartbeat_interval, 0.1))
        self.node = Node(stage, k, links, plan.steps, policy, generation, now)
        path = self.folder / checkpoint.NAME
        if path.exists():
            state = checkpoint.load(self.folder)
            try:
                self.node.load_state_dict(state)
            except (KeyError, TypeError, ValueError, RuntimeError) as error:
                raise ValueError(f"{path} is of another stage, or of another build of it ({error})") from error
        self.stepped, self.longest_step, self.longest_save = 0, 0.0, policy.start_within / 5

    def run(
        self,
        report: Callable[[dict[str, float]], None],
        stop: Callable[[], bool],
        orphaned: Callable[[], bool],
    ) -> None:
        """Make turns until asked to stop; then write the checkpoint and the timeline.

        Args:
            report: called after each turn with the ``REPORT_FIELDS``.
            stop: whether to stop now.
            orphaned: whether no supervisor is left that could ask it to stop; then it stops when it has had nothing
                to do for ``policy.idle_exit_after`` seconds.
        """
        ended, last_step, policy = False, time.monotonic(), self.plan.policy
        self.node.send_heartbeats()
        with self._heartbeats_in_background():
            while not stop():
                began = time.monotonic()
                result = self.node.turn()
                now = time.monotonic()
                if result is TurnResult.STEPPED:
                    self.stepped, last_step = self.stepped + 1, now
                    # The first step may include compiling: it counts only until the second is made.
                    self.longest_step = max(now - began, 0.99 * self.longest_step if self.stepped > 2 else 0.0)
                report(self.report(now))
                if result is TurnResult.STEPPED:
                    if self.node.counters.steps % policy.checkpoint_every == 0:
                        self._save(report)
                    continue
                if self.node.done and not ended:  # after a restart from this checkpoint nothing is sent again
                    ended = True
                    self._save(report)
                if now - last_step > policy.idle_exit_after and orphaned():
                    break
                self.hub.wait(self.node.inlets_to_watch(), policy.heartbeat_interval)
                self._record("wait", now, time.monotonic())
            self._save(report)
        events = [asdict(StageEvent(*event)) for event in self.events]
        checkpoint.write_atomically(self.plan.events_file(self.k), json.dumps(events).encode())

    def report(self, now: float, saving: bool = False) -> dict[str, float]:
        """The ``REPORT_FIELDS`` by name.

        Args:
            now: the time.
            saving: whether it is about to write its checkpoint.
        """
        counters, policy = self.node.counters, self.plan.policy
        refused = counters.refused + sum(inlet.refused.total() for inlet in self.inlets)
        longest = self.longest_step if self.stepped else policy.start_within / 5
        allowed = 5 * (self.longest_save if saving else longest)
        process = ProcessState(now, self.stepped, allowed, self.node.done, self.generation)
        return {**vars(counters), **process._asdict(), "refused": refused}

    def _save(self, report: Callable[[dict[str, float]], None]) -> None:
        """Write the checkpoint, which may take longer than a step: it may be large, or its disk far away."""
        began = time.monotonic()
        report(self.report(began, saving=True))
        checkpoint.save(self.folder, self.node.state_dict())
        now = time.monotonic()
        self.longest_save = now - began
        report(self.report(now))

    @contextmanager
    def _heartbeats_in_background(self) -> Iterator[None]:
        """While open, a thread repeats the last heartbeats, so that a long step does not look like death."""
        interval, over = max(min(self.plan.policy.silence_timeout / 4, 1.0), 0.02), threading.Event()

        def repeat() -> None:
            while not over.wait(interval):
                self.node.mailbox.repeat_heartbeats()

        thread = threading.Thread(target=repeat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    @contextmanager
    def timed(self, kind: str) -> Iterator[None]:
        """Add an activity to the timeline."""
        start = time.monotonic()
        yield
        self._record(kind, start, time.monotonic())

    def _record(self, kind: str, start: float, end: float) -> None:
        last = self.events[-1] if self.events else None
        if kind == "wait" and last is not None and last[0] == kind:  # several waits in a row are one event
            self.events[-1] = (kind, last[1], end, last[3])
        else:
            self.events.append((kind, start, end, self.node.counters.clock))


def _ipc_links(plan: Plan, k: int, hub: Hub) -> Links:
    """Sockets in the run's private folder; receivers bind."""
    queue, last = plan.policy.queue, plan.stages - 1

    def address(kind: str, stage: int) -> str:
        return f"ipc://{plan.sockets}/{kind}{stage}"

    return Links(
        messages_in=ZmqInlet(hub, address("messages", k), queue) if k > 0 else None,
        gradients_out=ZmqOutlet(hub, address("gradients", k - 1)) if k > 0 else None,
        messages_out=ZmqOutlet(hub, address("messages", k + 1)) if k < last else None,
        gradients_in=ZmqInlet(hub, address("gradients", k), queue) if k < last else None,
    )


def _write_report(numbers: Any, report: dict[str, float]) -> None:
    """Write a report into shared memory."""
    numbers[:] = [float(report[name]) for name in REPORT_FIELDS]
