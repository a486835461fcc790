"""A process per stage on this machine; whoever dies or hangs is restarted from its own checkpoint.

The supervisor is not on the data path: when it dies, the stages go on to their end.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from synthgrad import checkpoint
from synthgrad.launch.node import Told
from synthgrad.launch.outcome import Outcome, Restart, StageFailed, Status, Stopped
from synthgrad.launch.policy import Policy
from synthgrad.launch.worker import NUMBERS, Plan, events_of, fresh_run, locked, state_of, told_from, work
from synthgrad.stage import Stage

LOOK = 0.05
"""Seconds between two looks at the stages."""


class Supervisor:
    """Starts the stages, watches them, restarts them, stops them. See ``launch`` for the arguments."""

    def __init__(
        self,
        build: Callable[[int], Stage],
        stages: int,
        steps: int,
        policy: Policy,
        folder: str | Path | None,
        resume: bool,
        watch: Callable[[Sequence[Status]], None],
    ):
        self.build, self.stages, self.steps, self.policy = build, stages, steps, policy
        self.folder, self.resume, self.watch = folder, resume, watch

    def run(self) -> Outcome:
        """Run the stages to their end."""
        with contextlib.ExitStack() as stack:
            # Short and private: a socket's path may have 107 characters, and only this user may connect.
            sockets = stack.enter_context(_temporary())
            folder = Path(self.folder) if self.folder else stack.enter_context(_temporary())
            stack.enter_context(held(folder, self.resume, self.stages))
            plan = Plan(self.build, self.stages, self.steps, self.policy, folder, fresh_run(), sockets)
            watched = [_Watched(plan, k) for k in range(self.stages)]
            began = time.monotonic()
            try:
                with _terminable():
                    for one in watched:
                        one.start()
                    self._watch(watched, began)
            except KeyboardInterrupt:
                kept = f"; resume=True with folder={folder} goes on" if self.folder else ""
                raise Stopped(f"all stages have stopped{kept}") from None
            finally:
                _stop(watched, self.policy.hang_after)
            seconds = time.monotonic() - began
            found = [state_of(plan, k) for k in range(self.stages)]
            return Outcome(
                [state["stage"] for state in found],
                [one.told() for one in watched],
                sorted((r for one in watched for r in one.restarts), key=lambda r: r.at),
                [events_of(plan, k) for k in range(self.stages)],
                seconds,
            )

    def _watch(self, watched: list[_Watched], began: float) -> None:
        while True:
            for one in watched:
                one.look(time.monotonic() - began)
            self.watch([one.status() for one in watched])
            if all(one.ended() for one in watched):
                return
            time.sleep(LOOK)


class _Watched:
    """One stage's process, as its supervisor sees it."""

    def __init__(self, plan: Plan, k: int):
        self.plan, self.k = plan, k
        self.context: Any = _context(_module_of(plan.build))
        self.numbers = self.context.RawArray("d", len(NUMBERS))
        self.generation, self.started = 0, 0.0
        self.best = self.in_a_row = 0
        self.restarts: list[Restart] = []
        self.out: tuple[str, float, float, int] | None = None  # why, at, when noticed, steps then
        self.process: Any = None

    def start(self) -> None:
        """Start it, or start it again."""
        self.generation += 1
        self.started = time.monotonic()
        # The child's end tells it when the supervisor's, held by nobody else, is gone.
        theirs, self.mine = self.context.Pipe(duplex=False)
        self.process = self.context.Process(
            target=work, args=(self.plan, self.k, self.generation, self.numbers, theirs), name=f"stage {self.k}"
        )
        self.process.start()
        theirs.close()

    def look(self, at: float) -> None:
        """See whether it is alive; restart it if not.

        Raises:
            StageFailed: if that has not helped so often.
        """
        told, own = told_from(self.numbers)
        here = own["generation"] == self.generation
        if here and self.out is not None and (own["stepped"] or own["ended"]):
            why, since, noticed, steps = self.out
            lost = max(steps - (told.steps - int(own["stepped"])), 0)
            self.restarts.append(Restart(self.k, why, since, lost, time.monotonic() - noticed))
            self.out = None
        if told.steps > self.best:
            self.best, self.in_a_row = told.steps, 0
        turned = own["turned"] if here else 0.0
        patience = self.plan.policy.hang_after if turned else self.plan.policy.start_within
        why = None
        if self.process.exitcode is not None:
            code = self.process.exitcode
            why = f"killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        elif time.monotonic() - max(turned, self.started) > patience:
            why = "hung"
            self.process.kill()
            self.process.join()
        if why is None:
            return
        self.process.close()
        if self.in_a_row >= self.plan.policy.max_restarts:
            raise StageFailed(self.obituary(why))
        self.in_a_row += 1
        noticed = self.out[2] if self.out else time.monotonic()
        self.out = (why, at, noticed, self.out[3] if self.out else told.steps)
        self.start()

    def obituary(self, why: str) -> str:
        """What is said of a stage that cannot be helped."""
        error = self.plan.of_stage(self.k) / "error.txt"
        told = error.read_text().strip() if why.startswith("ended") and error.exists() else "it left no traceback"
        return f"stage {self.k} failed {self.in_a_row + 1} times in a row ({why}):\n{told}"

    def ended(self) -> bool:
        """Whether it has made all its steps."""
        own = told_from(self.numbers)[1]
        return bool(own["ended"]) and own["generation"] == self.generation

    def told(self) -> Told:
        """What it has told last."""
        return told_from(self.numbers)[0]

    def status(self) -> Status:
        """How it is doing."""
        told, own = told_from(self.numbers)
        here = own["generation"] == self.generation
        state = (
            "ended" if self.ended() else "running" if here and not self.out else "out" if self.out else "starting"
        )
        return Status(self.k, state, self.generation, told, self.process.pid)


def _stop(watched: Sequence[_Watched], patience: float) -> None:
    """Ask all to stop with their checkpoints; kill who does not."""
    alive = [one.process for one in watched if one.process is not None and one.process._popen is not None]
    for process in alive:
        process.terminate()
    deadline = time.monotonic() + patience
    for process in alive:
        process.join(max(deadline - time.monotonic(), 0.1))
        if process.exitcode is None:
            process.kill()
            process.join()


def _context(module: str) -> Any:
    """A server that has imported torch and the stages' module forks them: a restart takes a moment, not seconds."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # torch._dynamo: the first optimizer of a process imports it, which takes seconds.
    context.set_forkserver_preload(["__main__", "synthgrad.launch.worker", "torch._dynamo", module])
    return context


def _module_of(build: Any) -> str:
    while isinstance(build, functools.partial):
        build = build.func
    return getattr(build, "__module__", None) or type(build).__module__


@contextmanager
def held(folder: Path, resume: bool, stages: int) -> Iterator[None]:
    """The run's folder, for this launch alone.

    Raises:
        FileExistsError: if it holds a run, and is not to be resumed.
        ValueError: if the run in it has another number of stages.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        found = len([*folder.glob(f"stage-*/{checkpoint.NAME}")])
        if found and not resume:
            raise FileExistsError(f"{folder} holds a run already; resume it, or choose another folder")
        if found > stages:
            raise ValueError(f"{folder} holds a run of {found} stages, not {stages}")
        yield


@contextmanager
def _temporary() -> Iterator[Path]:
    """A folder for this launch. Not ``TemporaryDirectory``: a stage may still be writing when it is removed."""
    path = Path(tempfile.mkdtemp(prefix="synthgrad-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _terminable() -> Iterator[None]:
    """A polite kill is taken like Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = {kind: signal.signal(kind, interrupt) for kind in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
