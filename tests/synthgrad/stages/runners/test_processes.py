"""Stages in processes of their own, stopped, killed and hung on purpose; each launch costs about a second."""

import contextlib
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from synthgrad import checkpoint
from synthgrad.stages import StageFailed, Stopped, launch
from synthgrad.stages.runners import processes as supervisor
from synthgrad.stages.runners import run_folder
from synthgrad.stages.runners.run_folder import lock_folder
from tests.helpers import chains, processes
from tests.helpers.processes import STEPS, Watch, alive, gone_within, kill, paused, run

_in_time, place = processes._in_time, processes.place

# --- without faults ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("complete", [False, True], ids=["unlocked", "completely unlocked"])
def test_in_lockstep_processes_give_the_simulations_numbers_bit_for_bit(equal, complete):
    """Also with heartbeats between steps: each stage pauses, most for longer than the heartbeat interval."""
    slow = {0: 0.01, 1: 0.002, 2: 0.012}
    real = run(paused(0.01, complete=complete, slow=slow), 25, lockstep=True, heartbeat_interval=0.004)
    simulated = launch(partial(chains.build, complete=complete), 3, 25, "simulated")
    assert equal(chains.parameters_of(real, complete), chains.parameters_of(simulated, complete))
    assert equal(chains.parameters_of(real, complete), chains.learnt(25, complete=complete))
    compared = ("steps", "clock", "dropped", "lost", "refused", "learnt", "staleness", "regression_loss", "loss")
    for a, b in zip(real.counters, simulated.counters, strict=True):
        assert [str(getattr(a, name)) for name in compared] == [str(getattr(b, name)) for name in compared]


def test_without_lockstep_all_steps_are_made(tmp_path):
    watch = Watch()
    began = time.monotonic()
    outcome = run(folder=tmp_path, watch=watch)
    assert (
        [counters.clock for counters in outcome.counters]
        == [counters.steps for counters in outcome.counters]
        == [STEPS] * 3
    )
    assert all(counters.dropped == counters.refused == counters.replayed == 0 for counters in outcome.counters)
    assert all(
        counters.learnt > 10 and counters.learnt + counters.lost <= STEPS for counters in outcome.counters[:2]
    )
    assert math.isfinite(outcome.counters[2].loss)
    assert outcome.restarts == []
    assert 0 < outcome.seconds < time.monotonic() - began
    assert watch.all_gone()
    assert {(k, "ended") for k in range(3)} <= watch.states
    for k, events in enumerate(outcome.events):
        kinds = {event.kind for event in events}
        step = {"forward", "backward", "update"}
        assert step <= kinds <= {*step, "send", "fit", "wait"}
        assert all(began < event.start <= event.end for event in events)
        assert sum(event.kind == "forward" for event in events) == STEPS
        assert chains.parameters_of(outcome)  # the states fit the stages
        state = checkpoint.load(tmp_path / f"stage-{k}")
        assert state["counters"]["clock"] == STEPS


def test_a_completely_unlocked_chain():
    outcome = run(partial(chains.build, complete=True))
    assert [counters.steps for counters in outcome.counters] == [STEPS] * 3
    assert all(counters.learnt > 0 and counters.refused == 0 for counters in outcome.counters[:2])
    assert chains.parameters_of(outcome, complete=True)


# --- death and hanging -------------------------------------------------------------------------------------


def test_a_killed_stage_is_restarted_from_its_checkpoint():
    watch = Watch(1, 60, kill(signal.SIGKILL))
    outcome = run(paused(), watch=watch, checkpoint_every=20)
    (restart,) = outcome.restarts
    assert (restart.k, restart.why) == (1, "killed by signal 9")
    assert 0 <= restart.steps_lost <= 20
    assert restart.seconds > 0
    assert 0 < restart.at < outcome.seconds
    assert [counters.clock for counters in outcome.counters] == [STEPS] * 3
    assert outcome.counters[0].steps == STEPS
    assert (1, "down") in watch.states
    assert watch.all_gone()


def test_all_stages_may_be_killed_one_after_the_other():
    killed, pids = [], set()

    def watch(statuses):
        pids.update(status.pid for status in statuses)
        k = len(killed)
        if k < 3 and statuses[k].state == "running" and (killed or statuses[0].counters.steps >= 50):
            killed.append(k)
            os.kill(statuses[k].pid, signal.SIGKILL)

    outcome = run(paused(), watch=watch, checkpoint_every=10, replay=4)
    assert killed == [restart.k for restart in outcome.restarts] == [0, 1, 2]
    assert [counters.clock for counters in outcome.counters] == [STEPS] * 3
    assert not any(map(alive, pids))


def test_a_hung_stage_is_killed_and_restarted():
    watch = Watch(1, 40, kill(signal.SIGSTOP))
    outcome = run(paused(), watch=watch, checkpoint_every=20, hang_timeout=2.0)
    hung = [restart for restart in outcome.restarts if restart.k == 1]
    assert hung[0].why == "hung"
    assert hung[0].at > 2
    assert [counters.clock for counters in outcome.counters] == [STEPS] * 3
    assert watch.all_gone()


def test_a_stage_that_dies_after_its_end_is_still_ended(tmp_path):
    killed = []

    def watch(statuses):
        if not killed and (tmp_path / "stage-0" / checkpoint.NAME).exists():  # it is written only at the end
            killed.append(statuses[0].pid)
            os.kill(statuses[0].pid, signal.SIGKILL)

    build = partial(chains.build, slow={2: 0.04})  # the others end long before, even on a slow disk
    outcome = run(build, 150, folder=tmp_path, watch=watch, queue=100, checkpoint_every=1000)
    assert [(restart.k, restart.steps_lost) for restart in outcome.restarts] == [(0, 0)]
    assert [counters.steps for counters in outcome.counters] == [150] * 3


# --- failures that stay ------------------------------------------------------------------------------------


def test_a_stage_that_always_raises_ends_the_launch_with_its_traceback():
    watch, began = Watch(), time.monotonic()
    with pytest.raises(StageFailed) as failed:
        run(partial(chains.failing, stage=1, at=30), watch=watch, max_restarts=2)
    text = str(failed.value)
    assert text.startswith("stage 1 failed 3 times in a row (ended with exit code 1):\nTraceback")
    assert text.endswith("LookupError: no such thing")
    assert "in _fail" in text
    assert time.monotonic() - began < 30
    assert watch.all_gone()


@pytest.mark.parametrize(("how", "text"), [("build", "LookupError: there is no stage 2"), ("die", "it left no tr")])
def test_a_stage_that_cannot_be_built_ends_the_launch(how, text):
    with pytest.raises(StageFailed, match="stage 2 failed 1 times in a row") as failed:
        run(partial(chains.unbuildable, stage=2, how=how), max_restarts=0)
    assert text in str(failed.value)


@pytest.mark.parametrize(("stages", "k", "needs"), [(2, 1, "a criterion"), (4, 2, "an interface")])
def test_a_chain_of_another_length_is_an_error(stages, k, needs):
    """Otherwise a stage would wait for ever for one that does not exist."""
    with pytest.raises(ValueError, match=f"stage {k} needs {needs}.*: is it built for another number of stages?"):
        launch(chains.build, stages, STEPS, "simulated")
    with pytest.raises(StageFailed, match=r"stage \d needs an? \w+"):  # from the first process that fails
        run(stages=stages, max_restarts=0)


def test_sockets_are_in_tmp_if_temporary_folders_have_long_paths(monkeypatch, place):
    (long := place / ("x" * 100)).mkdir()
    monkeypatch.setattr(run_folder.tempfile, "mkdtemp", partial(tempfile.mkdtemp, dir=long))
    before = {*Path("/tmp").glob("synthgrad-*")}
    assert [counters.steps for counters in run(steps=10).counters] == [10] * 3
    assert {*Path("/tmp").glob("synthgrad-*")} <= before
    assert not [*long.iterdir()]


def test_without_a_short_path_the_launch_fails_at_once(monkeypatch, place):
    (long := place / ("x" * 100)).mkdir()

    def mkdtemp(prefix, dir=long):
        if dir == "/tmp":
            raise FileNotFoundError("no such folder: /tmp")
        return tempfile.mkdtemp(prefix=prefix, dir=dir)

    monkeypatch.setattr(run_folder.tempfile, "mkdtemp", mkdtemp)
    with pytest.raises(ValueError, match=r"too long for sockets.*set TMPDIR to a shorter path"):
        run()


def test_a_stage_without_sockets_reports_why(monkeypatch, place):
    (long := place / ("x" * 100)).mkdir()
    monkeypatch.setattr(supervisor, "socket_folder", lambda stack: long)
    with pytest.raises(StageFailed, match=r"cannot (listen at|send to) ipc"):
        run(max_restarts=0)


def test_an_error_in_watch_stops_all_stages():
    def error(status):
        raise LookupError("the watcher's")

    watch = Watch(0, 5, error)
    with pytest.raises(LookupError, match="the watcher's"):
        run(paused(), watch=watch)
    assert watch.all_gone()


# --- stopping and resuming ---------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_can_be_resumed(tmp_path, number):
    folder = tmp_path / "run"
    watch = Watch(1, 40, lambda status: os.kill(os.getpid(), number))
    handler = signal.getsignal(number)
    with pytest.raises(Stopped, match=f"all stages have stopped; resume=True with folder={folder} resumes the run"):
        run(paused(), folder=folder, watch=watch, checkpoint_every=1000)
    assert signal.getsignal(number) is handler
    assert watch.all_gone()
    saved = [checkpoint.load(folder / f"stage-{k}")["counters"] for k in range(3)]
    assert all(20 < counters["clock"] < STEPS for counters in saved)

    with pytest.raises(FileExistsError, match="holds a run already; resume it"):
        run(folder=folder)
    for stages in (2, 4):
        with pytest.raises(ValueError, match=f"holds a run of 3 stages, not {stages}"):
            run(stages=stages, folder=folder, resume=True)
    torn = folder / "stage-1" / f".{checkpoint.NAME}.12345"
    torn.write_bytes(b"half a checkp")

    outcome = run(folder=folder, resume=True)
    assert [counters.clock for counters in outcome.counters] == [STEPS] * 3
    assert outcome.counters[0].steps == STEPS  # it has made no step twice
    assert all(counters.steps > before["steps"] for counters, before in zip(outcome.counters, saved, strict=True))
    assert not torn.exists()


def test_a_run_resumed_at_its_end_makes_no_more_steps(tmp_path, equal):
    first = run(steps=30, folder=tmp_path)
    again = run(steps=30, folder=tmp_path, resume=True)
    assert equal(chains.parameters_of(again), chains.parameters_of(first))
    assert [counters.steps for counters in again.counters] == [30] * 3
    longer = run(steps=40, folder=tmp_path, resume=True)
    assert [counters.steps for counters in longer.counters] == [40] * 3


def test_resuming_an_empty_folder_starts_a_run(tmp_path):
    outcome = run(partial(chains.build, stages=2), 10, 2, folder=tmp_path / "a" / "b", resume=True)
    assert outcome.counters[0].steps == 10


def test_a_damaged_checkpoint_is_an_error(tmp_path):
    path = tmp_path / "stage-1" / checkpoint.NAME
    path.parent.mkdir()
    checkpoint.save(path.parent, {"weights": torch.ones(99)})
    path.write_bytes(path.read_bytes()[:-100])
    text = r"stage 1 failed(.|\n)*checkpoint.pt is not a checkpoint that can be trusted"
    with pytest.raises(StageFailed, match=text):
        run(folder=tmp_path, resume=True, max_restarts=0)
    assert path.exists()


def test_a_folder_in_use_is_not_touched(tmp_path):
    with lock_folder(tmp_path), pytest.raises(BlockingIOError, match="is in use by a run under way"):
        run(folder=tmp_path)


def test_a_stages_folder_in_use_is_an_error(tmp_path):
    """A stage without a supervisor may still use it."""
    (tmp_path / "stage-1").mkdir()
    text = "stage-1 is in use by a run under way"
    with lock_folder(tmp_path / "stage-1"), pytest.raises(StageFailed, match=text):
        run(folder=tmp_path, max_restarts=0)


# --- the launching process itself --------------------------------------------------------------------------

PROGRAM = """
import os, sys
from functools import partial
from tests.helpers import chains
from synthgrad.stages import Policy, Stopped, launch

build = partial(chains.build, pause=0.005)

def watch(statuses):
    if all(status.counters.steps >= 30 for status in statuses):
        print(*(status.pid for status in statuses), flush=True)

if __name__ == "__main__":
    try:
        policy = Policy(idle_exit_after=0.5, silence_timeout=60.0)
        launch(build, 3, 400, folder=sys.argv[1], policy=policy, watch=watch)
    except Stopped as stopped:
        print("stopped:", stopped, flush=True)
"""


@contextlib.contextmanager
def launching(folder, place):
    """Launch in a process of its own group; gives the process, and its stages' pids after 30 steps."""
    paths = [str(Path(chains.__file__).parents[2]), *sys.path]
    environment = {**os.environ, "TMPDIR": str(place), "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, "-c", PROGRAM, str(folder)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(command, env=environment, start_new_session=True, **pipes)
    with process:
        try:
            pids = [int(pid) for pid in process.stdout.readline().split()]
            assert len(pids) == 3
            yield process, pids
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def clocks(folder):
    return [checkpoint.load(folder / f"stage-{k}")["counters"]["clock"] for k in range(3)]


def test_ctrl_c_reaches_all_processes_and_each_stops_with_its_checkpoint(tmp_path, place):
    with launching(tmp_path, place) as (process, pids):
        os.killpg(process.pid, signal.SIGINT)
        output = process.stdout.read()
        assert process.wait(30) == 0
    assert "stopped: all stages have stopped; resume=True" in output
    assert "Traceback" not in output
    assert gone_within(pids, 1)
    assert all(30 <= clock < 400 for clock in clocks(tmp_path))
    assert run(steps=400, folder=tmp_path, resume=True).counters[0].steps == 400


def test_stages_without_a_supervisor_end_by_themselves(tmp_path, place):
    with launching(tmp_path, place) as (process, pids):
        process.kill()
        process.wait(30)
        time.sleep(0.2)
        assert all(map(alive, pids))
        assert gone_within(pids, 60)
    assert clocks(tmp_path) == [400] * 3
    assert not list(place.glob("synthgrad-*"))
    outcome = run(steps=400, folder=tmp_path, resume=True)
    assert [counters.steps for counters in outcome.counters] == [400] * 3
