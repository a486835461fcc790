"""A process per stage on this machine; whoever dies or hangs is restarted from its own checkpoint.

The supervisor is not on the data path: when it dies, the stages go on to their end.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from synthgrad import checkpoint
from synthgrad.stages.counters import NUMBERS
from synthgrad.stages.outcome import Outcome, Status, Stopped
from synthgrad.stages.policy import Policy
from synthgrad.stages.runners.interrupts import Interrupts
from synthgrad.stages.runners.lock import locked
from synthgrad.stages.runners.nursery import SHORT, Nursery
from synthgrad.stages.runners.supervised import Watched
from synthgrad.stages.runners.worker import Plan, fresh_run, state_of, work
from synthgrad.stages.stage import Stage


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
            interrupts = stack.enter_context(Interrupts())
            folder = (Path(self.folder) if self.folder else stack.enter_context(temporary())).resolve()
            stack.enter_context(held(folder, self.resume, self.stages))
            watched: Sequence[Watched] = ()
            killed: list[int] = []
            began = time.monotonic()
            try:
                try:
                    watched = self.placed(folder, stack)
                    began = time.monotonic()
                    for one in watched:
                        one.start()
                    self._watch(watched, began)
                finally:
                    interrupts.stop()
                    killed += _stop(watched, lambda: interrupts.hurried)
            except KeyboardInterrupt:
                kept = f"; resume=True with folder={folder} goes on" if self.folder else ""
                how = f", stages {killed} killed with the checkpoint that they had" if killed else ""
                raise Stopped(f"all stages have stopped{how}{kept}") from None
            seconds = time.monotonic() - began
            return Outcome(
                [state_of(one.plan, one.k)["stage"] for one in watched],
                [one.counters() for one in watched],
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
        sockets = short(stack)
        nursery = Nursery(self.build)
        stack.callback(nursery.close)
        plan = Plan(self.build, self.stages, self.steps, self.policy, folder, fresh_run(), sockets)
        return [_Process(plan, k, nursery) for k in range(self.stages)]

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

    def __init__(self, plan: Plan, k: int, nursery: Nursery):
        super().__init__(plan, k)
        self.nursery, self.context = nursery, nursery.context
        self.numbers = self.context.RawArray("d", len(NUMBERS))
        self.process: Any = None

    def begin(self) -> None:
        with contextlib.suppress(OSError):  # of another life, or another run
            (self.plan.of_stage(self.k) / "error.txt").unlink(missing_ok=True)
        # The child's end tells it when the supervisor's, held by nobody else, is gone.
        self.mine, theirs = self.context.Pipe()
        process = self.context.Process(
            target=work, args=(self.plan, self.k, self.generation, self.numbers, theirs), name=f"stage {self.k}"
        )
        self.nursery.start(process)
        theirs.close()
        if self.process is not None:
            self.process.close()
        self.process = process

    def dead(self) -> str | None:
        code = self.process.exitcode
        if code is None:
            return None
        self._sweep()
        return f"killed by signal {-code}" if code < 0 else f"ended with exit code {code}"

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self._sweep()

    def _sweep(self) -> None:
        """End what the stage's process has started and left: its group."""
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def last_words(self) -> str:
        with contextlib.suppress(EOFError, OSError):
            if self.mine.poll():
                return self.mine.recv_bytes().decode(errors="replace")
        return ""

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()

    def wait(self, seconds: float) -> bool:
        if self.process is None:
            return True
        self.process.join(seconds)
        return self.process.exitcode is not None

    def end(self) -> None:
        if self.process is not None:
            self.kill()

    @property
    def pid(self) -> int | None:
        return self.process.pid


def _stop(watched: Sequence[Watched], hurried: Callable[[], bool]) -> list[int]:
    """Ask all to stop with their checkpoints; kill who does not in time, or all that are left once it is urgent.

    Returns:
        Who was killed.
    """
    for one in watched:
        one.stop()
    killed = []
    deadline = time.monotonic() + max((one.silence_timeout for one in watched), default=0.0)
    for one in watched:
        while not (stopped := one.wait(0.1)) and time.monotonic() < deadline and not hurried():
            pass
        if not stopped:
            killed.append(one.k)
        one.end()
    return killed


def short(stack: contextlib.ExitStack) -> Path:
    """A private folder for sockets; in /tmp, where the usual place has too long a path.

    Raises:
        ValueError: if that is none, either.
    """
    usual = stack.enter_context(temporary())
    if len(os.fsencode(usual)) <= SHORT:
        return usual
    try:
        return stack.enter_context(temporary("/tmp"))
    except OSError as error:
        raise ValueError(f"{usual} is too long for sockets, and {error}; set TMPDIR to a shorter path") from None


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
        before = max(found, stages)
        if found and path.exists():
            try:
                before = json.loads(path.read_text())["stages"]
            except (ValueError, KeyError, TypeError):
                raise ValueError(
                    f"{path} is damaged; remove it if the run has {found} stages, and resume"
                ) from None
        if before != stages:
            raise ValueError(f"{folder} holds a run of {before} stages, not {stages}")
        checkpoint.write_atomically(path, json.dumps({"stages": stages}).encode())
        yield


@contextmanager
def temporary(place: str | None = None) -> Iterator[Path]:
    """A folder for this launch. Not ``TemporaryDirectory``: a stage may still be writing while it is removed.

    Args:
        place: where it is to be made, if not in the usual place.
    """
    path = Path(tempfile.mkdtemp(prefix="synthgrad-", **({} if place is None else {"dir": place})))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
