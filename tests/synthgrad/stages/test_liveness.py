"""Long steps, sleep, deaths near the end, child processes, changed code: each is handled, or reported."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from synthgrad.stages import Policy, StageFailed, launch
from synthgrad.stages.channels import Links, Packet, PacketKind
from synthgrad.stages.channels.in_process import Queue
from synthgrad.stages.counters import REPORT_FIELDS, Counters
from synthgrad.stages.neighbour import ListeningClock
from synthgrad.stages.runners import process_starter, supervised
from synthgrad.stages.runners.plan import Plan
from synthgrad.stages.runners.worker import Worker
from tests.helpers import chains, processes
from tests.helpers.processes import STEPS, Watch, alive, gone_within, kill, paused, run

_in_time, place = processes._in_time, processes.place

# --- long steps --------------------------------------------------------------------------------------------


def test_a_step_longer_than_hang_timeout_is_no_hang():
    outcome = run(partial(chains.build, slow={1: 0.4}), 6, hang_timeout=0.1)
    assert outcome.restarts == []
    assert [counters.steps for counters in outcome.counters] == [6] * 3


def stuck(k, stage, at, **settings):
    return chains.build(k, seen=partial(_stick, stage, at), **settings)


def _stick(stage, at, k, step):
    if k == stage and step >= at:
        time.sleep(1000)


@pytest.mark.parametrize(("at", "setting"), [(0, "start_within"), (3, "hang_timeout")])
def test_a_step_that_never_ends_is_an_error_that_names_the_setting_to_raise(at, setting):
    limits = {"start_within": 3.0} if at == 0 else {"hang_timeout": 0.5}
    with pytest.raises(StageFailed, match=r"stage 1 failed .*\(hung\)[^$]*raise the policy's " + setting):
        run(partial(stuck, stage=1, at=at), max_restarts=0, **limits)


class FakeHub:
    """Links whose far ends the test holds; ``wait`` returns quickly."""

    def __init__(self):
        self.up, self.down = Queue(time.monotonic), Queue(time.monotonic)
        self.links = Links(messages_in=self.up, gradients_out=self.down)

    def wait(self, inlets, seconds):
        time.sleep(min(seconds, 0.01))


@pytest.mark.usefixtures("unchecked")
def test_in_the_middle_of_a_step_a_stage_sends_heartbeats(tmp_path):
    """It repeats its last heartbeats; the message of the step is not acknowledged yet."""
    begun, go, stop = threading.Event(), threading.Event(), threading.Event()

    def wait(k, step):
        begun.set()
        assert go.wait(60)

    hub, policy = FakeHub(), Policy(silence_timeout=0.1, heartbeat_interval=1000.0)
    plan = Plan(partial(chains.build, seen=wait), 3, STEPS, policy, tmp_path, bytes(16))
    worker = Worker(plan, 2, 1, hub, hub.links)
    h, y = chains.data(5)
    hub.up.put(Packet(PacketKind.MESSAGE, 1, 1, 5, tensors=(h, y)))
    thread = threading.Thread(target=worker.run, args=(lambda report: None, stop.is_set, lambda: False))
    thread.start()
    try:
        assert begun.wait(60)
        while hub.down.get() is not None:
            pass
        heartbeats = []
        while len(heartbeats) < 3:
            heartbeats += filter(None, [hub.down.get()])
            time.sleep(0.01)
        assert {(packet.kind, packet.ack) for packet in heartbeats} == {(PacketKind.HEARTBEAT, -1)}
    finally:
        go.set()
        stop.set()
        thread.join(60)
        worker.lock.close()
    assert any(packet.kind is PacketKind.GRADIENT for packet in iter(hub.down.get, None))


# --- sleep -------------------------------------------------------------------------------------------------


class Fake(supervised.SupervisedStage):
    """A stage whose reports the test makes."""

    def __init__(self, **policy):
        super().__init__(Plan(chains.build, 2, 9, Policy(**policy), Path(), bytes(16)), 0)
        self.kills = 0
        self.start()

    def report(self, turned, **own):
        numbers = {**vars(Counters()), "turned": turned, "stepped": 5, "allowed": 0.0, "ended": 0.0, **own}
        self.numbers = [float({"generation": self.generation, **numbers}[name]) for name in REPORT_FIELDS]

    def spawn(self):
        pass

    def cause_of_death(self):
        return None

    def kill(self):
        self.kills += 1

    traceback = stop = end = wait = pid = None


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 1000.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(supervised, "time", clock)
    return clock


Fake.__abstractmethods__ = frozenset()


def test_after_a_sleep_a_stage_has_its_whole_timeout_again(clock):
    stage = Fake(hang_timeout=10.0)
    stage.report(clock.now)
    clock.now += 3600  # the laptop was closed
    for _ in range(99):
        stage.check(0.0)
        clock.now += 0.1
    assert stage.kills == 0
    stage.report(clock.now)
    for _ in range(99):
        clock.now += 0.1
        stage.check(0.0)
    assert stage.kills == 0
    for _ in range(4):
        clock.now += 0.1
        stage.check(0.0)
    assert stage.kills == 1


@pytest.mark.parametrize(("allowed", "silence_timeout"), [(0.0, 10.0), (25.0, 25.0)])
def test_a_stage_may_ask_for_more_time(clock, allowed, silence_timeout):
    stage = Fake(hang_timeout=10.0)
    stage.report(clock.now, allowed=allowed)
    for _ in range(int(silence_timeout)):
        clock.now += 1.0
        stage.check(0.0)
    assert stage.kills == 0
    clock.now += 1.0
    stage.check(0.0)
    assert stage.kills == 1


def test_time_in_which_a_stage_slept_is_no_silence_of_its_neighbours(monkeypatch):
    class Time:
        now = 5.0

        def monotonic(self):
            return self.now

    time_ = Time()
    monkeypatch.setattr("synthgrad.stages.neighbour.time", time_)
    awake = ListeningClock(0.5)
    time_.now += 0.25
    assert awake() == 0.25
    time_.now += 1000
    assert awake() == 0.75


# --- missed steps ------------------------------------------------------------------------------------------


def dying(k, stage, at, mark):
    """A chain in which one stage dies once, before a step."""
    return chains.build(k, pause=0.002, seen=partial(_die, stage, at, mark))


def _die(stage, at, mark, k, step):
    if k == stage and step == at and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_last_stage_that_dies_near_the_end_and_is_hardly_trained_is_an_error(tmp_path):
    build = partial(dying, stage=2, at=150, mark=tmp_path / "mark")
    with pytest.raises(
        StageFailed, match=r"stage 2 is hardly trained: it was sent .* smaller checkpoint_every"
    ) as error:
        run(build, checkpoint_every=1000)
    counters = error.value.outcome.counters[2]
    assert counters.missed == STEPS - counters.steps > 100
    assert error.value.outcome.restarts
    assert chains.parameters_of(error.value.outcome)


def test_missed_steps_are_counted_and_logged(tmp_path, caplog):
    build = partial(dying, stage=2, at=100, mark=tmp_path / "mark")
    with caplog.at_level(logging.WARNING, "synthgrad"):
        outcome = run(build, checkpoint_every=1)
    counters = outcome.counters[2]
    assert counters.missed == STEPS - counters.steps
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ([f"stage 2 has missed {counters.missed} of {STEPS} steps"] if counters.missed else [])


# --- child processes ---------------------------------------------------------------------------------------


def with_child(k, folder):
    """A chain in which stage 1 starts a process that never ends."""
    if k == 1:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
        (folder / f"{time.monotonic_ns()}.pid").write_text(str(child.pid))
    return chains.build(k, pause=0.004)


def test_the_child_processes_of_a_killed_stage_end_with_it(tmp_path):
    watch = Watch(1, 30, kill(signal.SIGKILL))
    run(partial(with_child, folder=tmp_path), watch=watch, checkpoint_every=10)
    pids = [int(path.read_text()) for path in tmp_path.glob("*.pid")]
    assert len(pids) == 2
    assert gone_within(pids, 20)


# --- current code and environment --------------------------------------------------------------------------

MODULE = """
import os
from tests.helpers import chains
NAME = {name!r}
def build(k):
    with open({path!r}, "a") as file:
        file.write(NAME + os.environ["SAID"] + chr(10))
    return chains.build(k, stages=2)
"""


def test_a_second_launch_uses_the_current_code_and_environment(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    said = tmp_path / "said"
    for name, word in (("one", "1"), ("and two", "2"), ("and two", "3")):
        (tmp_path / "changing.py").write_text(MODULE.format(name=name, path=str(said)))
        sys.modules.pop("changing", None)
        monkeypatch.setenv("SAID", word)
        module = __import__("changing")
        run(module.build, 3, 2)
    sys.modules.pop("changing", None)
    assert Counter(said.read_text().split("\n")) == {"one1": 2, "and two2": 2, "and two3": 2, "": 1}


def test_a_build_that_processes_cannot_import_is_refused_at_once(monkeypatch):
    with pytest.raises(ValueError, match="it must be a function of a module"):
        run(lambda k: chains.build(k))
    monkeypatch.setitem(sys.modules, "__main__", type(sys)("__main__"))
    build = partial(chains.build)
    process_starter.check_importable(build)

    def of_main(k):
        return chains.build(k)

    of_main.__module__, of_main.__qualname__ = "__main__", "of_main"
    sys.modules["__main__"].of_main = of_main
    for wrong in (of_main, partial(of_main), partial(chains.build, seen=of_main)):
        with pytest.raises(ValueError, match=r"build is of __main__, which has no file here.*put it into a module"):
            process_starter.check_importable(wrong)


def test_a_script_without_a_main_guard_is_an_error(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from tests.helpers import chains\nfrom synthgrad.stages import Policy, launch\n"
        "launch(chains.build, 3, 5, policy=Policy(max_restarts=0))\n"
    )
    paths = [str(Path(chains.__file__).parents[2]), *sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, timeout=100)
    assert "keep it under if __name__ == '__main__'" in done.stderr
    assert "what it printed is on standard error" in done.stderr


# --- the end -----------------------------------------------------------------------------------------------

PROGRAM = """
import sys
from functools import partial
from tests.helpers import chains
from tests.synthgrad.stages import test_liveness
from synthgrad.stages import Policy, Stopped, launch

def watch(statuses):
    if statuses[0].counters.steps >= 14:  # the queue is full: stage 1 has made five steps, and is at its sixth
        print(*(status.pid for status in statuses), flush=True)

if __name__ == "__main__":
    try:
        build = partial(test_liveness.stuck, stage=1, at=5)
        launch(build, 3, 400, policy=Policy(hang_timeout=1000.0, silence_timeout=60.0), watch=watch)
    except Stopped as stopped:
        print("stopped:", stopped, flush=True)
"""


def test_a_second_ctrl_c_kills_all_stages_at_once(place):
    paths = [str(Path(chains.__file__).parents[2]), *sys.path]
    environment = {**os.environ, "TMPDIR": str(place), "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(command, env=environment, start_new_session=True, **pipes) as process:
        pids = [int(pid) for pid in process.stdout.readline().split()]
        process.send_signal(signal.SIGINT)
        assert gone_within([pids[0], pids[2]], 60)  # these stop when asked; the one between cannot
        assert alive(pids[1])
        process.send_signal(signal.SIGINT)
        output = process.stdout.read()
        assert process.wait(60) == 0
    assert "stopped: all stages have stopped, stages [1] killed" in output
    assert "Traceback" not in output
    assert gone_within(pids, 10)


def test_a_traceback_of_an_earlier_run_is_not_reported(tmp_path):
    (tmp_path / "stage-1").mkdir()
    (tmp_path / "stage-1" / "error.txt").write_text("ValueError: of yesterday")
    with pytest.raises(StageFailed, match="it left no traceback") as error:
        run(partial(chains.unbuildable, stage=1, how="die"), folder=tmp_path, max_restarts=0)
    assert "yesterday" not in str(error.value)
    assert not (tmp_path / "stage-1" / "error.txt").exists()


def test_a_damaged_launch_file_is_an_error(tmp_path):
    run(paused(0.0), 5, folder=tmp_path)
    assert json.loads((tmp_path / "launch.json").read_text()) == {"stages": 3}
    (tmp_path / "launch.json").write_text("{")
    with pytest.raises(ValueError, match=r"launch.json is damaged; remove it if the run has 3 stages"):
        launch(chains.build, 3, 5, folder=tmp_path, resume=True)
