"""Pipelines of processes; each call takes seconds, so that a few of them check everything."""

import math
import multiprocessing
import os
import time
from functools import partial
from tempfile import TemporaryDirectory

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from synthgrad_lab.stages.bench import emulated as emulated_module
from synthgrad_lab.stages.bench import pipelines
from synthgrad_lab.stages.bench.emulated import Emulated
from synthgrad_lab.stages.bench.pipelines import Pipeline

SIZES = {"stages": 2, "microbatches": 2, "batch": 16, "width": 8, "limit": 600.0}


def emulated(k, of, seconds=0.02):
    return Emulated(8, 2 * seconds / of, rows=16)


def layers(k, of, width=8, classes=3):
    if k == of - 1:
        return nn.Linear(width, classes)
    return nn.Sequential(nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU())


def failing(k, of, how):
    if k == 1:
        how()
    return nn.Linear(8, 8)


def refuse():
    raise ValueError("no such layer")


class Slept:
    """A replacement for the time module in which only sleeping takes time."""

    now = 0.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds

    def seconds_of(self, call):
        before = self.now
        call()
        return self.now - before


@pytest.fixture
def slept(monkeypatch):
    monkeypatch.setattr(emulated_module, "time", found := Slept())
    return found


@pytest.fixture
def clean(tmp_path, monkeypatch):
    """Checks that no process and no file is left."""
    monkeypatch.setattr(pipelines, "TemporaryDirectory", partial(TemporaryDirectory, dir=tmp_path))
    yield
    assert not multiprocessing.active_children()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("needs", [False, True])
def test_an_emulated_backward_pass_takes_twice_the_forward_pass(needs, slept):
    layer, x = Emulated(8, 0.02, rows=64), torch.randn(32, 8, requires_grad=needs)
    assert slept.seconds_of(lambda: layer(x)) == pytest.approx(0.01)
    y = layer(x)
    assert slept.seconds_of(lambda: y.sum().backward()) == pytest.approx(0.02)


def test_an_emulated_backward_pass_splits_into_two_halves(slept):
    layer, x = Emulated(8, 0.02, rows=32), torch.randn(32, 8, requires_grad=True)
    y = layer(x)
    for tensor, gradient in ((x, torch.ones(32, 8)), (layer.weight, torch.full((8,), 32.0))):
        result = torch.autograd.grad(y.sum(), tensor, retain_graph=True)
        assert torch.equal(result[0], gradient)
        took = slept.seconds_of(lambda t=tensor: torch.autograd.grad(y.sum(), t, retain_graph=True))
        assert took == pytest.approx(0.02)


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize(("schedule", "held"), [("gpipe", [{0}, {1}]), ("zbv", [{0, 3}, {1, 2}])])
def test_all_ranks_report_their_events(schedule, held):
    measured = Pipeline(schedule, emulated, classes=None, steps=2, warmup=1, **SIZES).measure()
    assert 0 < measured.samples_per_second <= 16 / 0.06 * 1.05  # the rate of stages that never wait
    assert [{e.stage for e in events if e.kind == "forward"} for events in measured.events] == held
    for events in measured.events:
        assert {e.kind for e in events} == {"forward", "backward", "update", "wait"}
        assert {e.step for e in events} == {0, 1}
        ends = [at for e in events for at in (e.start, e.end)]
        assert ends == sorted(ends)
        passes = [e.end - e.start for e in events if e.kind in ("forward", "backward")]
        assert sum(passes) > 0.1  # 0.12 by design
        assert min(passes) < 0.05  # 0.02 at most by design: waiting for another rank is no pass
    first, second = ({e.kind: e for e in reversed(events)}["forward"].start for events in measured.events)
    assert first < second  # on one clock
    assert len(measured.losses) == 2
    assert math.isfinite(measured.losses[0])
    assert measured.losses[1] < measured.losses[0]


@pytest.mark.usefixtures("clean")
def test_1f1b_trains_like_one_process():
    measured = Pipeline("1f1b", layers, classes=3, steps=4, warmup=1, **SIZES).measure()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(16, 8, generator=generator)
    y = torch.randint(3, (16,), generator=generator)
    parts = []
    for k in range(2):
        torch.manual_seed(k)
        parts.append(layers(k, 2))
    net = nn.Sequential(*parts)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    losses = []
    for _ in range(5):
        each = [F.cross_entropy(net(a), b) / 2 for a, b in zip(x.chunk(2), y.chunk(2), strict=True)]
        losses.append(sum(each).item())
        optimizer.zero_grad()
        sum(each).backward()
        optimizer.step()
    assert measured.losses == pytest.approx(losses[1:], rel=1e-4)
    assert measured.losses[-1] < measured.losses[0]


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize(
    ("how", "limit", "error", "message"),
    [
        (refuse, 600, RuntimeError, r"(?s)rank 1 of 2 failed:.*in refuse.*ValueError: no such layer"),
        (partial(os._exit, 7), 600, RuntimeError, "rank 1 of 2 died with exit code 7"),
        (partial(time.sleep, 600), 1, TimeoutError, r"ranks \[0, 1\] of 2 had not ended after 1 s"),
    ],
)
def test_the_error_names_the_rank_that_failed(how, limit, error, message):
    build = partial(failing, how=how)
    began = time.monotonic()
    with pytest.raises(error, match=message):
        Pipeline("gpipe", build, classes=None, steps=1, **SIZES | {"limit": limit}).measure()
    assert time.monotonic() - began < 300


@pytest.mark.usefixtures("clean")
def test_ctrl_c_leaves_nothing(monkeypatch):
    def interrupted(*pipes):
        raise KeyboardInterrupt

    monkeypatch.setattr(pipelines, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Pipeline("gpipe", emulated, classes=None, steps=1, **SIZES).measure()


def test_impossible_sizes_are_refused_before_any_process_starts():
    with pytest.raises(ValueError, match="gpipe, 1f1b, zbv"):
        Pipeline("pipedream", emulated, classes=None, steps=1, **SIZES)
    with pytest.raises(ValueError, match="microbatches=2, batch=15: they must"):
        Pipeline("gpipe", emulated, classes=None, steps=1, **SIZES | {"batch": 15})
