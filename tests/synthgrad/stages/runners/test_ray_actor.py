"""Actors without Ray, in threads of this process: they end when they are alone, and follow a new address."""

from __future__ import annotations

import os
import threading
import time
from contextlib import ExitStack, contextmanager

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from synthgrad import Interface
from synthgrad.models import Linear
from synthgrad.stages import Policy
from synthgrad.stages.channels.zeromq import Keys
from synthgrad.stages.runners.plan import Plan
from synthgrad.stages.runners.ray_actor import Outgoing, StageActor
from synthgrad.stages.stage import Stage


def build(k):
    part = nn.Linear(4, 4 - k)
    above = Interface(Linear(4)) if k == 0 else None
    return Stage(
        part=part,
        optimizer=torch.optim.SGD([*part.parameters(), *(above.parameters() if above else ())], lr=0.01),
        above=above,
        criterion=F.cross_entropy if k == 1 else None,
        data=(lambda step: (torch.ones(2, 4), torch.arange(2))) if k == 0 else None,
        schedule=lambda step: time.sleep(0.001),
        conditioned=False,
    )


@pytest.fixture
def plan(tmp_path):
    (tmp_path / "lock").touch()
    return Plan(build, 2, 1_000_000, Policy(checkpoint_every=5), tmp_path, os.urandom(16), keys=Keys.generate())


@pytest.fixture
def actor():
    """Makes actors, and ends them."""
    with ExitStack() as stack:
        stack.callback(torch.set_num_threads, torch.get_num_threads())

        def made(plan, k, end_actor=lambda: None):
            actor = StageActor(plan, k, lambda: "127.0.0.1", end_actor)
            stack.callback(actor.hub.close)
            stack.callback(actor.stop)
            return actor

        yield made


@contextmanager
def running(actor, generation, outgoing):
    """The answer of ``run`` at the end, in a list."""
    answer = []
    thread = threading.Thread(target=lambda: answer.append(actor.run(generation, outgoing)))
    thread.start()
    try:
        yield answer
    finally:
        actor.stop()
        thread.join(10)


def test_neighbours_send_to_the_address_of_a_new_process(plan, actor, unchecked):
    first, second, third = actor(plan, 0), actor(plan, 1), actor(plan, 1)
    assert first.status().messages is None
    assert second.status().gradients is None
    below, above = first.status().gradients, [second.status().messages, third.status().messages]
    assert len({below, *above}) == 3
    with running(first, 1, Outgoing(None, above[0])) as ended:
        with running(second, 1, Outgoing(below, None)) as ended_too:
            assert _grows(lambda: second.status().numbers.get("steps", 0), 20)
        assert ended_too == [""]
        learnt = first.status().numbers["learnt"]
        with running(third, 2, Outgoing(below, None)):
            assert _grows(lambda: third.status().numbers.get("turned", -1), 0)
            at_checkpoint = third.status().numbers["steps"]
            assert at_checkpoint >= 20
            assert first.status(Outgoing(None, above[1])).generation == 1
            assert _grows(lambda: third.status().numbers["steps"], at_checkpoint + 20)
            assert _grows(lambda: first.status().numbers["learnt"], learnt + 10)
        assert third.status().numbers["refused"] == 0
    assert ended == [""]


def test_an_actor_that_is_not_asked_any_more_ends(plan, actor):
    left = threading.Event()
    alone = Plan(build, 2, 9, Policy(idle_exit_after=0.3), plan.folder, plan.run, keys=plan.keys)
    asked, forgotten = actor(alone, 0), actor(alone, 0, left.set)
    began = time.monotonic()
    assert left.wait(5)
    assert time.monotonic() - began > 0.2
    assert asked.status().process_id != forgotten.status().process_id


def test_a_folder_that_is_not_shared_is_named(plan, actor):
    (plan.folder / "lock").unlink()
    error = actor(plan, 0).run(1, Outgoing(None, "tcp://127.0.0.1:1"))
    assert error.startswith("Traceback")
    assert f"FileNotFoundError: {plan.folder} is not the run's folder on " in error


def _grows(value, to):
    end = time.monotonic() + 20
    while value() < to and time.monotonic() < end:
        time.sleep(0.02)
    return value() >= to
