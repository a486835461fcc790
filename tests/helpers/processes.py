"""Launches in processes: with a time limit, and checks that nothing is left behind."""

import multiprocessing
import os
import shutil
import signal
import tempfile
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from synthgrad.stages import Policy, launch
from synthgrad.stages.runners import process_starter, run_folder
from tests.helpers import chains

STEPS = 200


@pytest.fixture(autouse=True)
def _in_time():
    """A test that hangs fails."""

    def late(number, frame):
        raise TimeoutError("a test of processes takes more than two minutes")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def place(monkeypatch):
    """The folder for temporary folders (short: it holds sockets); checks that no folder and no process is left."""
    folder = Path(tempfile.mkdtemp(prefix="test-"))
    mkdtemp = partial(tempfile.mkdtemp, dir=folder)
    monkeypatch.setattr(run_folder, "tempfile", SimpleNamespace(mkdtemp=mkdtemp))
    # Pytest writes each test's name into the environment, which would start a new server for each test.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    own = {*os.environ} - {*environment}
    monkeypatch.setattr(
        process_starter, "_environment", lambda: {n: v for n, v in os.environ.items() if n not in own}
    )
    yield folder
    left = [path.name for path in folder.glob("synthgrad-*")]
    shutil.rmtree(folder)
    assert not left
    assert not multiprocessing.active_children()


class Watch:
    """Collects all pids, and calls ``do`` once a stage has made some steps."""

    def __init__(self, k=0, steps=10**9, do=lambda status: None):
        self.k, self.steps, self.do = k, steps, do
        self.pids, self.states, self.done = set(), set(), False

    def __call__(self, statuses):
        self.pids |= {status.pid for status in statuses}
        self.states |= {(status.k, status.state) for status in statuses}
        if not self.done and statuses[self.k].counters.steps >= self.steps:
            self.done = True
            self.do(statuses[self.k])

    def all_gone(self):
        return not any(map(alive, self.pids))


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def kill(number):
    return lambda status: os.kill(status.pid, number)


def run(
    build=chains.build, steps=STEPS, stages=3, folder=None, resume=False, watch=lambda statuses: None, **policy
):
    """A launch with a long silence timeout: the machine may be busy."""
    settings = {"folder": folder, "resume": resume, "watch": watch}
    return launch(build, stages, steps, policy=Policy(**{"silence_timeout": 60.0, **policy}), **settings)


def paused(seconds=0.004, **settings):
    """A chain with slow steps, so that a test can act meanwhile."""
    return partial(chains.build, pause=seconds, **settings)


def gone_within(pids, seconds):
    deadline = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(map(alive, pids))
