"""Stages on a Ray cluster of this machine: the numbers of the simulation, restarts, failures, and no leftovers."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from synthgrad import Interface
from synthgrad.models import Linear
from synthgrad.stages import Policy, StageFailed, launch
from synthgrad.stages.runners.run_folder import temporary_folder
from synthgrad.stages.stage import Stage

ray = pytest.importorskip("ray")


def chain(stages, *, slow=0.0, once=None, broken=False):
    """Makes ``build``, which actors get by value: they cannot import this file.

    Args:
        stages: how many.
        slow: seconds that a step takes.
        once: a file that stage 0 makes when it fails, for the first time only.
        broken: whether stage 1 fails every time.
    """

    class Descent(torch.optim.Optimizer):
        """Gradient descent. Torch's own imports its compiler, which takes every actor seconds."""

        def __init__(self, parameters):
            self.parameters = parameters

        def step(self, closure=None):
            for parameter in self.parameters:
                if parameter.grad is not None:
                    parameter.data -= 0.03 * parameter.grad

        def zero_grad(self, set_to_none=True):
            for parameter in self.parameters:
                parameter.grad = None

        def state_dict(self):
            return {}

        def load_state_dict(self, state_dict):
            pass

    def build(k):
        torch.manual_seed(k)
        last = k == stages - 1
        part = nn.Linear(5, 3) if last else nn.Sequential(nn.Linear(5, 5), nn.Tanh())
        above = None if last else Interface(Linear(5))

        def data(step):
            x = torch.randn(8, 5, generator=torch.Generator().manual_seed(step))
            return x, x.argmax(1) % 3

        def schedule(step):
            time.sleep(slow)
            if k == 1 and broken:
                raise ValueError("stage 1 is broken")
            if k == 0 and once is not None and step > 40 and not once.exists():
                once.touch()
                raise ArithmeticError("only once")

        return Stage(
            part=part,
            optimizer=Descent([*part.parameters(), *(above.parameters() if above else ())]),
            above=above,
            criterion=F.cross_entropy if last else None,
            data=None if k else data,
            schedule=schedule,
            conditioned=False,
        )

    return build


def flat(state):
    if isinstance(state, dict | list | tuple):
        return [leaf for item in (state.values() if isinstance(state, dict) else state) for leaf in flat(item)]
    return [state.tolist() if isinstance(state, torch.Tensor) else state]


def processes():
    """All processes that this test has started; they inherit a mark."""
    mark = f"STARTED_BY_TEST={os.getpid()}".encode()
    found = set()
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in environ.read_bytes():
                found.add(environ.parent.name)
        except OSError:  # another user's, or it has ended meanwhile
            continue
    return found


def within(seconds, condition):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.1)
    return condition()


@pytest.fixture(autouse=True)
def _marked(monkeypatch):
    monkeypatch.setenv("STARTED_BY_TEST", str(os.getpid()))


@pytest.fixture(scope="module")
def cluster():
    """The address of a Ray cluster that exists before and after a launch."""
    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
    quiet["_system_config"] = {"worker_niceness": 0}
    with temporary_folder() as folder:
        ray.init("local", num_cpus=3, object_store_memory=100 << 20, _temp_dir=str(folder / "ray"), **quiet)
        yield ray.get_runtime_context().gcs_address
        ray.shutdown()


def actors():
    return ray.util.list_named_actors(all_namespaces=True)


def test_in_lockstep_ray_gives_the_simulations_numbers_and_a_cluster_for_one_launch_is_removed(monkeypatch):
    assert not ray.is_initialized()
    before = [signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)]
    # Long timeouts: the machine may be busy.
    policy, seen = Policy(lockstep=True, silence_timeout=60.0, hang_timeout=60.0), []
    simulated = launch(chain(3), 3, 40, "simulated", policy=policy)
    with tempfile.TemporaryDirectory(prefix="s") as name:  # short: there is a limit to Ray's paths
        folder = Path(name)
        monkeypatch.setattr(tempfile, "tempdir", name)

        def watch(statuses):
            assert [path.name for held in folder.iterdir() for path in held.glob("ray")]
            seen.append((statuses, processes()))

        outcome = launch(chain(3), 3, 40, "ray", policy=policy, watch=watch)
        assert not [*folder.iterdir()]
    assert not outcome.restarts
    assert [counters.learnt for counters in outcome.counters] == [40, 40, 0]
    assert [counters.refused for counters in outcome.counters] == [0, 0, 0]
    assert all({"forward", "update", "send"} <= {event.kind for event in events} for events in outcome.events)
    assert flat(outcome.states) == flat(simulated.states)
    assert all(status.state == "ended" for status in seen[-1][0])
    assert {str(status.pid) for status in seen[-1][0]} <= seen[-1][1]
    assert not ray.is_initialized()
    assert [signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)] == before
    assert within(10, lambda: not processes())


def test_stages_that_are_killed_or_fail_are_restarted_and_the_run_ends(cluster, tmp_path):
    killed = []

    def watch(statuses):
        if statuses[1].counters.steps > 30 and not killed:
            killed.append(statuses[1].pid)
            os.kill(killed[0], signal.SIGKILL)

    build, policy = chain(2, slow=0.02, once=tmp_path / "once"), Policy(checkpoint_every=10)
    outcome = launch(build, 2, 200, "ray", policy=policy, address=cluster, folder=tmp_path / "run", watch=watch)
    assert killed
    why = {restart.k: restart.why for restart in outcome.restarts}
    assert why == {0: "ArithmeticError: only once", 1: "its process or machine died"}
    assert all(0 <= restart.steps_lost <= 20 and restart.seconds > 0 for restart in outcome.restarts)
    assert [counters.clock for counters in outcome.counters] == [200, 200]
    assert within(10, lambda: not actors())
    with pytest.raises(FileExistsError, match="holds a run already"):
        launch(build, 2, 200, "ray", folder=tmp_path / "run")


def test_a_stage_that_always_fails_ends_the_run_with_its_traceback_and_all_checkpoints(cluster, tmp_path):
    with pytest.raises(StageFailed, match=r"(?s)stage 1 failed 1 times.*, in schedule.*stage 1 is broken"):
        launch(chain(2, slow=0.02, broken=True), 2, 9000, "ray", policy=Policy(max_restarts=0), folder=tmp_path)
    assert (tmp_path / "stage-0" / "checkpoint.pt").exists()
    assert ray.is_initialized()
    assert within(10, lambda: not actors())


def test_stages_run_on_the_hosts_that_are_named(cluster, tmp_path):
    here = ray.util.get_node_ip_address()
    outcome = launch(chain(2), 2, 9, "ray", folder=tmp_path, hosts=[here])
    assert [counters.clock for counters in outcome.counters] == [9, 9]
    with pytest.raises(ValueError, match=f"hosts=10.0.0.9: the cluster has {here}"):
        launch(chain(2), 2, 9, "ray", folder=tmp_path / "other", hosts=[here, "10.0.0.9"])


def test_a_wrong_address_is_an_error_at_once(cluster):
    with pytest.raises(ValueError, match="connected to the Ray at"):
        launch(chain(2), 2, 9, "ray", address="10.0.0.1:6379")


@pytest.mark.parametrize(
    ("address", "why"), [("127.0.0.1:1", "there is no Ray"), ("ray://head:10001", "wanted HOST:PORT")]
)
def test_an_address_without_a_cluster_is_an_error_at_once(monkeypatch, address, why):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(ValueError, match=why):
        launch(chain(2), 2, 9, "ray", address=address)


def test_without_ray_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "synthgrad.stages.runners.ray_cluster", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'synthgrad\[ray\]'"):
        importlib.import_module("synthgrad.stages.runners.ray_cluster")
