"""A process per stage on this machine; a stage that dies or hangs is restarted from its own checkpoint.

The supervisor is not on the data path: when it dies, the stages finish their steps.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from synthgrad.stages.counters import REPORT_FIELDS
from synthgrad.stages.outcome import Outcome, Status, Stopped
from synthgrad.stages.policy import Policy
from synthgrad.stages.runners.interrupts import Interrupts
from synthgrad.stages.runners.plan import Plan, new_run_id
from synthgrad.stages.runners.process_starter import ProcessStarter
from synthgrad.stages.runners.run_folder import lock_run_folder, socket_folder, temporary_folder
from synthgrad.stages.runners.supervised import SupervisedStage
from synthgrad.stages.runners.worker import work
from synthgrad.stages.stage import Stage


class Supervisor:
    """Starts the stages, checks them, restarts them, stops them. See ``launch`` for the arguments."""

    check_every = 0.05
    """Seconds between two checks of the stages."""

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
            folder = (Path(self.folder) if self.folder else stack.enter_context(temporary_folder())).resolve()
            stack.enter_context(lock_run_folder(folder, self.resume, self.stages))
            stages: Sequence[SupervisedStage] = ()
            killed: list[int] = []
            began = time.monotonic()
            try:
                try:
                    stages = self.make_stages(folder, stack)
                    began = time.monotonic()
                    for stage in stages:
                        stage.start()
                    self._supervise(stages, began)
                finally:
                    interrupts.begin_shutdown()
                    killed += _stop(stages, lambda: interrupts.urgent)
            except KeyboardInterrupt:
                resume = f"; resume=True with folder={folder} resumes the run" if self.folder else ""
                how = f", stages {killed} killed with the checkpoint that they had" if killed else ""
                raise Stopped(f"all stages have stopped{how}{resume}") from None
            seconds = time.monotonic() - began
            return Outcome(
                [stage.plan.load_state(stage.k)["stage"] for stage in stages],
                [stage.counters() for stage in stages],
                sorted((restart for stage in stages for restart in stage.restarts), key=lambda r: r.at),
                [stage.events() for stage in stages],
                seconds,
            )

    def make_stages(self, folder: Path, stack: contextlib.ExitStack) -> Sequence[SupervisedStage]:
        """Make the stages, without starting them.

        Args:
            folder: of the run.
            stack: closed when all stages have stopped.
        """
        sockets = socket_folder(stack)
        starter = ProcessStarter(self.build)
        stack.callback(starter.close)
        plan = Plan(self.build, self.stages, self.steps, self.policy, folder, new_run_id(), sockets)
        return [_ProcessStage(plan, k, starter) for k in range(self.stages)]

    def _supervise(self, stages: Sequence[SupervisedStage], began: float) -> None:
        while True:
            for stage in stages:
                stage.check(time.monotonic() - began)
            self.watch([stage.status() for stage in stages])
            if all(stage.ended() for stage in stages):
                return
            time.sleep(self.check_every)


class _ProcessStage(SupervisedStage):
    """A stage in a process of this machine, which reports in shared memory."""

    def __init__(self, plan: Plan, k: int, starter: ProcessStarter):
        super().__init__(plan, k)
        self.starter, self.context = starter, starter.context
        self.numbers = self.context.RawArray("d", len(REPORT_FIELDS))
        self.process: Any = None

    def spawn(self) -> None:
        with contextlib.suppress(OSError):  # an earlier process, or an earlier run, may have left it
            self.plan.traceback_file(self.k).unlink(missing_ok=True)
        # Only the supervisor holds this end: when it dies, the stage sees the end of the connection.
        self.connection, theirs = self.context.Pipe()
        process = self.context.Process(
            target=work, args=(self.plan, self.k, self.generation, self.numbers, theirs), name=f"stage {self.k}"
        )
        self.starter.start(process)
        theirs.close()
        if self.process is not None:
            self.process.close()
        self.process = process

    def cause_of_death(self) -> str | None:
        code = self.process.exitcode
        if code is None:
            return None
        self._kill_group()
        return f"killed by signal {-code}" if code < 0 else f"ended with exit code {code}"

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self._kill_group()

    def _kill_group(self) -> None:
        """Kill the processes that the stage's process has started: they are in its group."""
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def traceback(self) -> str:
        with contextlib.suppress(EOFError, OSError):
            if self.connection.poll():
                return self.connection.recv_bytes().decode(errors="replace")
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


def _stop(stages: Sequence[SupervisedStage], urgent: Callable[[], bool]) -> list[int]:
    """Ask all stages to stop with their checkpoints; kill those that do not in time, or all once it is urgent.

    Returns:
        The stages that were killed.
    """
    for stage in stages:
        stage.stop()
    killed = []
    deadline = time.monotonic() + max((stage.hang_timeout for stage in stages), default=0.0)
    for stage in stages:
        while not (stopped := stage.wait(0.1)) and time.monotonic() < deadline and not urgent():
            pass
        if not stopped:
            killed.append(stage.k)
        stage.end()
    return killed
