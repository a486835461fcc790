"""Interfaces together with checkpointing, autocast, accumulation, DDP and compile."""

import copy
import pickle
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from synthgrad import Critic, Interface, RecurrentInterface, decouple, unlocked
from synthgrad.models import MLP, Linear


def make(**settings):
    """Two parts with a warm fused interface inside each, and a top."""
    interfaces = [Interface(MLP(4, hidden=3), **settings) for _ in range(2)]
    for interface in interfaces:
        for parameter in interface.parameters():
            nn.init.normal_(parameter, std=0.3)
    parts = [nn.Sequential(nn.Linear(4, 4), interface, nn.Tanh(), nn.Linear(4, 4)) for interface in interfaces]
    return nn.Sequential(*parts, nn.Linear(4, 3))


def grads(module):
    return [p.grad for p in module.parameters()]


def optimizers(net):
    """The network's own parameters a third as fast as the models' (DESIGN.md, section 2)."""
    models = {p for m in net.modules() if isinstance(m, Interface) for p in m.parameters()}
    own = [p for p in net.parameters() if p not in models]
    return torch.optim.Adam([{"params": own, "lr": 0.01}, {"params": list(models), "lr": 0.03}])


@pytest.fixture
def data():
    x = torch.randn(16, 4)
    return x.requires_grad_(), x.detach()[:, :3].argmax(1)


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0])
def test_activation_checkpointing_changes_no_gradient(data, equal, lam, use_reentrant):
    x, y = data
    plain = make(lam=lam)
    stored = copy.deepcopy(plain)
    for _ in range(2):  # the second time with a unit that has moved
        F.cross_entropy(plain(x), y).backward()
        h = x
        for part in stored[:2]:
            h = checkpoint(part, h, use_reentrant=use_reentrant)
        F.cross_entropy(stored[2](h), y).backward()
    assert equal(grads(stored), grads(plain))
    assert stored[0][1].unit == plain[0][1].unit != 1


def test_checkpointing_a_decoupled_network(data, equal):
    x, y = data
    results = []
    for checkpointed in (False, True):
        torch.manual_seed(1)
        net = nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.Tanh()), nn.Linear(4, 3))
        cut = decouple(net, {"0.0": Linear(4, context=3)})
        with cut.context(y):
            h = checkpoint(net[0], x, use_reentrant=False) if checkpointed else net[0](x)
            F.cross_entropy(net[1](h), y).backward()
        results.append(grads(net) + grads(cut))
    assert equal(*results)


@pytest.mark.parametrize("mode", ["fused", "unlocked"])
def test_autocast_trains(data, mode):
    x, y = data
    net, losses = make(), []
    outer = [Interface(Linear(4)) for _ in range(2)]
    optimizer = optimizers(nn.ModuleList([net, *outer]))
    for _ in range(120):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            if mode == "fused":
                loss = F.cross_entropy(net(x), y)
        if mode == "fused":
            loss.backward()
        else:
            parts = [torch.autocast("cpu", dtype=torch.bfloat16)(part) for part in net]
            for _k, loss in unlocked(parts, outer, x, lambda out: F.cross_entropy(out.float(), y)):
                loss.backward()
        assert all(g is None or g.isfinite().all() for g in grads(net))
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert all(m.unit.isfinite() and m.unit != 1 for m in net.modules() if isinstance(m, Interface))


def test_accumulation_adds_micro_batches(data, equal):
    x, y = data
    net = make(unit=1.0)
    alone = []
    for half in (slice(0, 8), slice(8, 16)):
        twin = copy.deepcopy(net)
        F.cross_entropy(twin(x[half]), y[half]).backward()
        F.cross_entropy(net(x[half]), y[half]).backward()
        alone.append(grads(twin))
    assert equal(grads(net), [a + b for a, b in zip(*alone, strict=True)], 1e-6)


def in_processes(calls, limit=900.0):
    """Run calls of this file's functions, each in a process of its own that leaves by itself; none outlives this.

    A worker of torch.multiprocessing leaves through Python's end, where gloo's threads may abort it after all went
    well. These end by ``os._exit``, so that what counts is the call.
    """
    code = "import os, sys, tests.synthgrad.interface.test_compat as t; t.{}; sys.stderr.flush(); os._exit(0)"
    usual = {"cwd": Path(__file__).parents[3], "stderr": subprocess.PIPE, "text": True}
    running = [subprocess.Popen([sys.executable, "-c", code.format(call)], **usual) for call in calls]
    try:
        ends = time.monotonic() + limit
        while not any(process.poll() for process in running) and any(p.poll() is None for p in running):
            assert time.monotonic() < ends, f"not ended within {limit} s: {calls}"
            time.sleep(0.05)
    finally:
        ended = [process.poll() for process in running]
        for process in running:
            process.kill()
        said = [process.communicate()[1] for process in running]
    assert ended == [0] * len(calls), "\n".join(said)


def replica(rank, folder):
    """One of two processes: raises if something is wrong."""
    torch.set_num_threads(1)
    meet, patience = f"file://{folder}/init", timedelta(minutes=10)
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=2, timeout=patience)
    torch.manual_seed(0)
    net = make(lam=0.25)
    start, alone = copy.deepcopy(net), copy.deepcopy(net)
    replicated = nn.parallel.DistributedDataParallel(net)
    optimizer = optimizers(net)
    torch.manual_seed(rank)  # each has data of its own
    for step in range(40):
        x = torch.randn(16, 4)
        y = x[:, :3].argmax(1)
        optimizer.zero_grad()
        loss = F.cross_entropy(replicated(x), y)
        loss.backward()
        if step == 0:  # the gradients, M's too, are the mean of what each would have got by itself
            F.cross_entropy(alone(x), y).backward()
            for parameter, mine in zip(net.parameters(), grads(alone), strict=True):
                dist.all_reduce(mine)
                torch.testing.assert_close(parameter.grad, mine / 2)
        optimizer.step()
    for name, parameter in net.named_parameters():
        both = [torch.empty_like(parameter) for _ in range(2)]
        dist.all_gather(both, parameter.detach())
        assert torch.equal(*both), name
        assert not torch.equal(parameter, start.get_parameter(name)), name
    assert loss < F.cross_entropy(start(x), y)
    # gloo fails, or hangs for ever, if one process leaves while the other is still in a collective.
    Path(folder, f"passed{rank}").touch()
    while not Path(folder, f"passed{1 - rank}").exists():
        time.sleep(0.05)


def test_two_replicas_stay_equal(tmp_path):
    in_processes([f"replica({rank}, {str(tmp_path)!r})" for rank in range(2)])
    assert {"passed0", "passed1"} <= {path.name for path in tmp_path.iterdir()}


def test_a_process_that_fails_is_reported_and_ends_its_peer(tmp_path):
    began = time.monotonic()
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        in_processes(["time.sleep(600)", "time.sleep(1 / 0)"])
    assert time.monotonic() - began < 300


def compiled():
    """Gradients with the parts compiled are those without, and so are the units."""
    torch.manual_seed(0)
    x = torch.randn(16, 4)
    y = x[:, :3].argmax(1)
    for lam in (0.0, 0.25, 1.0):
        plain = make(lam=lam)
        twin = copy.deepcopy(plain)
        for part in twin[:2]:
            part.compile(backend="aot_eager")  # traces forward and backward as inductor does, but starts sooner
        for net in (plain, twin):
            for _ in range(3):  # with a unit that moves
                F.cross_entropy(net(x), y).backward()
        torch.testing.assert_close(grads(twin), grads(plain))
        torch.testing.assert_close(twin[0][1].unit, plain[0][1].unit)


def test_compiled_parts():
    # In a process of its own: dynamo cannot trace beartype's checks, and warns.
    in_processes(["compiled()"])


def fused(a, interface, b, x, y):
    return F.cross_entropy(b(interface(a(x), y)), y)


def pair(a, interface, b, x, y):
    h = a(x)
    return interface.send(h, y) + F.cross_entropy(b(interface.receive(h, y)), y)


def compiled_whole(kind, backend):
    """One graph without a break, over batches of several sizes: gradients, units and counts as without."""
    for verb in (fused, pair):
        torch._dynamo.reset()
        torch.manual_seed(0)
        model = Critic(nn.Linear(4, 3)) if kind == "critic" else MLP(4, hidden=3, context=3)
        parts = nn.ModuleList([nn.Linear(4, 4), Interface(model, lam=0.25), nn.Linear(4, 3)])
        for p in parts[1].parameters():
            nn.init.normal_(p, std=0.3)
        twin = copy.deepcopy(parts)
        whole = torch.compile(verb, backend=backend, fullgraph=True)
        for n in (16, 16, 7, 16):
            x = torch.randn(n, 4)
            y = x[:, :3].argmax(1)
            whole(*parts, x, y).backward()
            verb(*twin, x, y).backward()
        for p, q in zip(parts.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad)
        torch.testing.assert_close(parts[1].unit, twin[1].unit)
        before = [p.grad.clone() for p in parts[1].parameters()]
        (whole(*parts, x, y) * torch.nan).backward()
        assert parts[1].skipped == 1
        torch.testing.assert_close([p.grad for p in parts[1].parameters()], before)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("kind", ["mlp", "critic"])
def test_compiled_whole(kind, backend):
    in_processes([f"compiled_whole({kind!r}, {backend!r})"])


def compiled_chunk():
    """A chunk is compiled around its interface."""
    core, future = nn.GRUCell(3, 4), RecurrentInterface(Interface(MLP(4)))
    twin_core, twin = copy.deepcopy((core, future))
    chunk = torch.compile(chunk_of, backend="aot_eager")
    state = other = torch.zeros(5, 4)
    for _ in range(4):
        x = torch.randn(3, 5, 3)
        loss, state = chunk(core, future, x, state.detach())
        loss.backward()
        loss, other = chunk_of(twin_core, twin, x, other.detach())
        loss.backward()
    for module, other in ((core, twin_core), (future, twin)):
        for p, q in zip(module.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad)
    torch.testing.assert_close(future.interface.unit, twin.interface.unit)


def chunk_of(core, future, x, state):
    state = future.receive(state)
    for step in x:
        state = core(step, state)
    return state.square().sum() + future.send(state), state


def test_compiled_chunk():
    in_processes(["compiled_chunk()"])


@pytest.mark.parametrize("way", ["state_dict", "pickle", "meta", "ema"])
def test_an_interface_in_a_net_is_saved_and_copied_like_any_module(way, tmp_path):
    net = nn.Sequential(nn.Linear(4, 4), Interface(MLP(4)), nn.Linear(4, 2))
    net(torch.randn(8, 4)).sum().backward()
    net(torch.full((8, 4), torch.nan)).sum().backward()
    if way == "ema":
        ema = torch.optim.swa_utils.AveragedModel(
            net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.0), use_buffers=True
        )
        ema.update_parameters(net)
        ema.update_parameters(net)
        other = ema.module
    elif way == "pickle":
        other = pickle.loads(pickle.dumps(net))
    else:
        torch.save(net.state_dict(), tmp_path / "net.pt")
        other = nn.Sequential(nn.Linear(4, 4), Interface(MLP(4)), nn.Linear(4, 2))
        if way == "meta":
            other = other.to("meta").to_empty(device="cpu")
        other.load_state_dict(torch.load(tmp_path / "net.pt", weights_only=True))
    assert all(isinstance(value, torch.Tensor) for value in net.state_dict().values())
    assert torch.equal(other[1].unit, net[1].unit)
    assert other[1].skipped == net[1].skipped == 1


def test_functional_call_sends_with_its_own_weights():
    interface, h = Interface(Linear(4), unit=1.0), torch.randn(8, 4, requires_grad=True)
    fast = {name: value.detach() + 1 for name, value in interface.named_parameters()}
    torch.func.functional_call(interface, fast, (h,)).sum().backward()
    torch.testing.assert_close(h.grad, h.detach() @ torch.ones(4, 4) + 1)
    _, used = interface.receive_with_prediction(h)
    assert (used == 0).all()
