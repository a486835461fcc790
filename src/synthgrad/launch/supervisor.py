"""A process per stage on this machine; whoever dies or hangs is restarted from its own checkpoint.

The supervisor is not on the data path: when it dies, the stages go on to their end.
"""

from __future__ import annotations

import contextlib
import functools
import json
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
from synthgrad.launch.outcome import Outcome, Status, Stopped
from synthgrad.launch.policy import Policy
from synthgrad.launch.watched import Watched
from synthgrad.launch.worker import NUMBERS, Plan, fresh_run, locked, state_of, work
from synthgrad.stage import Stage


class Supervisor:
    """Starts the stages, watches them, restarts them, stops them. See ``launch`` for the arguments."""

    look_every = 0.05
    """Seconds between two looks at the stages."""

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
            folder = (Path(self.folder) if self.folder else stack.enter_context(temporary())).resolve()
            stack.enter_context(held(folder, self.resume, self.stages))
            watched: Sequence[Watched] = ()
            began = time.monotonic()
            try:
                with _terminable():
                    watched = self.placed(folder, stack)
                    began = time.monotonic()
                    for one in watched:
                        one.start()
                    self._watch(watched, began)
            except KeyboardInterrupt:
                kept = f"; resume=True with folder={folder} goes on" if self.folder else ""
                raise Stopped(f"all stages have stopped{kept}") from None
            finally:
                _stop(watched, self.policy.hang_after)
            seconds = time.monotonic() - began
            return Outcome(
                [state_of(one.plan, one.k)["stage"] for one in watched],
                [one.told() for one in watched],
                sorted((r for one in watched for r in one.restarts), key=lambda r: r.at),
                [one.events() for one in watched],
                seconds,
            )

    def placed(self, folder: Path, stack: contextlib.ExitStack) -> Sequence[Watched]:
        """The stages, not started yet.

        Args:
            folder: of the run.
            stack: closed when all have stopped.
        """
        # Short and private: a socket's path may have 107 characters, and only this user may connect.
        sockets = stack.enter_context(temporary())
        plan = Plan(self.build, self.stages, self.steps, self.policy, folder, fresh_run(), sockets)
        return [_Process(plan, k) for k in range(self.stages)]

    def _watch(self, watched: Sequence[Watched], began: float) -> None:
        while True:
            for one in watched:
                one.look(time.monotonic() - began)
            self.watch([one.status() for one in watched])
            if all(one.ended() for one in watched):
                return
            time.sleep(self.look_every)


class _Process(Watched):
    """A stage in a process of this machine, which tells its numbers in shared memory."""

    def __init__(self, plan: Plan, k: int):
        super().__init__(plan, k)
        self.context: Any = _context(_module_of(plan.build))
        self.numbers = self.context.RawArray("d", len(NUMBERS))
        self.process: Any = None

    def begin(self) -> None:
        # The child's end tells it when the supervisor's, held by nobody else, is gone.
        theirs, self.mine = self.context.Pipe(duplex=False)
        process = self.context.Process(
            target=work, args=(self.plan, self.k, self.generation, self.numbers, theirs), name=f"stage {self.k}"
        )
        process.start()
        theirs.close()
        if self.process is not None:
            self.process.close()
        self.process = process

    def dead(self) -> str | None:
        code = self.process.exitcode
        if code is None:
            return None
        return f"killed by signal {-code}" if code < 0 else f"ended with exit code {code}"

    def kill(self) -> None:
        self.process.kill()
        self.process.join()

    def last_words(self) -> str:
        error = self.plan.of_stage(self.k) / "error.txt"
        return error.read_text() if self.process.exitcode >= 0 and error.exists() else ""

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()

    def join(self, deadline: float) -> None:
        if self.process is None:
            return
        self.process.join(max(deadline - time.monotonic(), 0.1))
        if self.process.exitcode is None:
            self.kill()

    @property
    def pid(self) -> int | None:
        return self.process.pid


def _stop(watched: Sequence[Watched], patience: float) -> None:
    """Ask all to stop with their checkpoints; kill who does not."""
    for one in watched:
        one.stop()
    deadline = time.monotonic() + patience
    for one in watched:
        one.join(deadline)


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
        BlockingIOError: if a run is under way there.
        FileExistsError: if it holds a run, and is not to be resumed.
        ValueError: if the run in it has another number of stages.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        found = len([*folder.glob(f"stage-*/{checkpoint.NAME}")])
        if found and not resume:
            raise FileExistsError(f"{folder} holds a run already; resume it, or choose another folder")
        path = folder / "launch.json"
        before = json.loads(path.read_text())["stages"] if found and path.exists() else max(found, stages)
        if before != stages:
            raise ValueError(f"{folder} holds a run of {before} stages, not {stages}")
        checkpoint.replace(path, json.dumps({"stages": stages}).encode())
        yield


@contextmanager
def temporary() -> Iterator[Path]:
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
