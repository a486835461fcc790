"""Chunks under way: streams, hooks, checkpoints, other interfaces inside, and freed memory."""

import copy
import gc
import weakref

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from synthgrad import AuxiliaryTask, EligibilityTraces, Interface, RecurrentInterface
from synthgrad.models import MLP, Linear

F64 = torch.float64


def warm(size, **settings):
    interface = Interface(MLP(size), **settings)
    for p in interface.parameters():
        nn.init.normal_(p, std=0.3)
    return interface


def test_users_hooks_run_once_per_chunk():
    core, calls = nn.GRUCell(3, 4), []
    core.register_full_backward_hook(lambda *_: calls.append(1))
    future, state = RecurrentInterface(warm(4)), torch.zeros(5, 4)
    for _ in range(25):
        state = core(torch.randn(5, 3), future.receive(state))
        (state.sum() + future.send(state)).backward()
    assert len(calls) == 25


@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_an_interface_inside_the_chunk_counts_each_gradient_once(scale):
    first, second = nn.GRUCell(2, 4), nn.GRUCell(4, 4)
    inner, future = warm(4, target_every=1000, lam=0.5), RecurrentInterface(warm(8), scale=scale)
    state = (torch.zeros(3, 4), torch.zeros(3, 4))
    for _ in range(30):
        a, b = future.receive(state)
        a = first(torch.randn(3, 2), a)
        state = (a, second(inner(a), b))
        (state[1].square().sum() + future.send(state)).backward()
    assert inner.target.gradients == 30


@pytest.mark.parametrize("lam", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("scale", [0.1, 0.0])
def test_scale_touches_no_target_with_an_interface_inside_the_chunk(equal, scale, lam):
    targets = []
    for each in (1.0, scale):
        torch.manual_seed(0)
        first, second = nn.RNNCell(2, 4).double(), nn.RNNCell(4, 4).double()
        m, M, shown = nn.Linear(4, 4).double(), nn.Linear(8, 8).double(), []

        def model(h, context, M=M, shown=shown):
            shown.append(M(h).detach().requires_grad_())
            return shown[-1]

        inner = Interface(lambda h, c, m=m: m(h), lam=lam, unit=1.0)
        future = RecurrentInterface(Interface(model, unit=1.0), scale=each)
        a, b = future.receive((torch.randn(3, 4, dtype=F64), torch.randn(3, 4, dtype=F64)))
        a = first(torch.randn(3, 2, dtype=F64), a)
        b = second(inner(a), b)
        (b.square().sum() + future.send((a, b))).backward()
        targets.append(shown[0].detach() - shown[0].grad * 3 / 2)
    assert equal(targets[:1], targets[1:], 1e-12)


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_two_streams_in_one_chunk_are_kept_apart(equal, scale):
    """Received in one order and sent in the other, both learn as each alone."""
    cores = [nn.GRUCell(2, 4).double() for _ in range(2)]
    found = []
    for together in (True, False):
        torch.manual_seed(0)
        future = RecurrentInterface(warm(4, unit=0.5), scale=scale).double()
        starts, xs = torch.randn(2, 3, 4, dtype=F64), torch.randn(2, 3, 2, dtype=F64)
        if together:
            begun = [future.receive(s) for s in starts]
            ends = [core(x, s) for core, x, s in zip(cores, xs, begun, strict=True)]
            terms = [ends[1].square().sum() + future.send(ends[1]), ends[0].square().sum() + future.send(ends[0])]
            sum(terms).backward()
        else:
            for k in (0, 1):
                end = cores[k](xs[k], future.receive(starts[k]))
                (end.square().sum() + future.send(end)).backward()
        found.append([p.grad.clone() for module in (*cores, future) for p in module.parameters()])
        for core in cores:
            core.zero_grad()
    assert equal(*found, 1e-12)


def test_a_restarted_stream_is_not_confused_with_the_other(equal):
    core = nn.GRUCell(2, 4).double()
    future = RecurrentInterface(warm(4)).double()
    for _ in range(40):
        started = future.receive(torch.randn(3, 4, dtype=F64))
        other = core(torch.randn(3, 2, dtype=F64), torch.zeros(3, 4, dtype=F64))
        future.send(other)
        assert not future.start.chunk.sent
        end = core(torch.randn(3, 2, dtype=F64), started)
        (end.sum() + future.send(end)).backward()


@pytest.mark.parametrize("scale", [1.0, 0.3])
@pytest.mark.parametrize("with_traces", [False, True])
def test_a_recurrent_interface_and_its_core_are_freed(scale, with_traces):
    def life():
        core, future = nn.GRUCell(3, 4), RecurrentInterface(Interface(Linear(4)), scale=scale)
        traces = EligibilityTraces(future, 0.5) if with_traces else None
        state = torch.zeros(2, 4)
        for _ in range(3):
            state = core(torch.randn(2, 3), future.receive(state))
            loss = state.sum() + future.send(state)
            if traces:
                traces.carry(state)
            loss.backward()
        future.receive(state)  # and one that is never sent
        return weakref.ref(core), weakref.ref(future)

    found = life()
    gc.collect()
    assert [each() for each in found] == [None, None]


def test_abandoned_chunks_are_freed():
    core, future, old = nn.GRUCell(3, 4), RecurrentInterface(warm(4)), []
    state = torch.zeros(2, 4)
    for _ in range(5):  # a user who looks at outputs in train mode, and never differentiates
        begun = future.receive(state)
        out = core(torch.randn(2, 3), begun)
        old.append(weakref.ref(future.start.message))
        del begun, out
    gc.collect()
    assert [each() is None for each in old] == [True] * 4 + [False]
    assert len(future.numbers.living) <= 2


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_a_chunk_in_a_checkpoint_is_the_chunk(equal, scale):
    core, future = nn.GRUCell(3, 4), RecurrentInterface(warm(4), scale=scale)
    twin_core, twin = copy.deepcopy((core, future))
    xs = torch.randn(20, 5, 3)
    state = other = torch.zeros(5, 4)
    for x in xs:
        state = checkpoint(lambda x, s: core(x, future.receive(s)), x, state.detach(), use_reentrant=False)
        (state.square().sum() + future.send(state)).backward()
        other = twin_core(x, twin.receive(other.detach()))
        (other.square().sum() + twin.send(other)).backward()
    assert equal(*([p.grad for m in pair for p in m.parameters()] for pair in ((core, future), (twin_core, twin))))
    assert future.numbers.count == twin.numbers.count == 20
    assert future.interface.unit == twin.interface.unit


def test_a_reentrant_checkpoint_in_a_chunk():
    core, future = nn.GRUCell(3, 4), RecurrentInterface(warm(4))
    state = future.receive(torch.zeros(5, 4))
    state = checkpoint(core, torch.randn(5, 3), state, use_reentrant=True)
    (state.sum() + future.send(state)).backward()
    assert all(p.grad is not None for p in core.parameters())


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_without_gradients_it_is_the_identity(context):
    future, state = RecurrentInterface(warm(4)), torch.randn(3, 4)
    auxiliary = AuxiliaryTask(MLP(4))
    with context():
        received = future.receive(state)
        assert torch.equal(received, state)
        assert future(state) is state
        assert future.send(state) == 0
        assert auxiliary(future) == 0
    assert future.numbers.count == 0


def test_eval_keeps_the_graph_of_all_tensors_whatever_is_sent(equal):
    core = nn.LSTM(2, 4).double()
    future, x = RecurrentInterface(warm(4), only=(0,)).double().eval(), torch.randn(2, 3, 5, 2, dtype=F64)
    found = []
    for through in (False, True):
        core.zero_grad()
        state = None
        for piece in x:
            if state is not None and through:
                state = future.receive(state)
            out, state = core(piece, state)
        out.sum().backward()
        found.append([p.grad.clone() for p in core.parameters()])
    assert equal(*found)


def test_whole_numbers_in_a_state_pass_unchanged():
    future = RecurrentInterface(warm(4))
    state = {"h": torch.randn(2, 4, requires_grad=True) * 1.0, "position": torch.tensor([2**24 + 1, 5])}
    received = future.receive(state)
    assert received["position"].tolist() == [2**24 + 1, 5]
    assert received["position"].dtype is torch.int64
    (received["h"].sum() + future.send(received)).backward()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("verb", ["send", "receive"])
@pytest.mark.parametrize(
    ("done", "said"),
    [
        (torch.zeros(5, 1), r"done has shape \(5, 1\), wanted \(5,\)"),
        (torch.zeros(4), r"done has shape \(4,\), wanted \(5,\)"),
        ([False] * 5, "done is a tensor of shape .5,., not list"),
    ],
)
def test_ends_of_the_wrong_shape_are_refused(verb, done, said):
    future = RecurrentInterface(warm(3))
    with pytest.raises((ValueError, TypeError), match=said):
        getattr(future, verb)(torch.randn(5, 3, requires_grad=True) * 1.0, done=done)


@pytest.mark.parametrize(
    ("name", "value"),
    [("scale", -1.0), ("scale", float("nan")), ("limit", 0.0), ("limit", -1.0), ("limit", float("nan"))],
)
def test_settings_out_of_range(name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        RecurrentInterface(Interface(Linear(3)), **{name: value})


@pytest.mark.parametrize(("limit", "trust"), [(0.05, False), (float("inf"), True)])
def test_traces_use_the_factor_of_what_was_sent(equal, limit, trust):
    """With λ = 1 M is regressed on the whole return, whatever factor its predictions get."""
    core, model = nn.RNN(2, 4).double(), Linear(4).double()
    nn.init.normal_(model.layers[0].weight, std=0.5)
    future = RecurrentInterface(Interface(model, unit_factor=1.0), scale=0.9, limit=limit, trust=trust).double()
    future.gamma = 1.0
    traces, state = EligibilityTraces(future, 1.0), torch.randn(1, 3, 4, dtype=F64)
    for _ in range(4):  # a unit, and a slope
        state = future.receive(state.detach())
        out, state = core(torch.randn(2, 3, 2, dtype=F64), state)
        (out.sin().sum() / 3 + future.send(state)).backward()
    model.zero_grad()
    future.agreement.products.requires_grad_(False)
    errors, jacobians, factors, features = [], [], [], []
    traces.traces = None
    for _ in range(3):
        state = future.receive(state.detach())
        start = future.start
        h = start.message.detach()
        out, state = core(torch.randn(2, 3, 2, dtype=F64), state)
        J = torch.stack(
            [torch.autograd.grad(state[0][:, i].sum(), start.message, retain_graph=True)[0] for i in range(4)], 1
        )
        loss = out.sin().sum() / 3 + future.send(state)
        traces.carry(state)
        start.received.register_hook(
            lambda d, h=h: errors.append((model(h, None) - d / future.interface.units.for_batch(3)).detach())
        )
        loss.backward()
        jacobians.append(J)
        factors.append(future.factor)
        features.append(torch.cat([h, torch.ones(3, 1, dtype=F64)], 1))
    expected = torch.zeros(4, 5, dtype=F64)
    for k in range(3):
        for j in range(k + 1):
            e = errors[k]
            for n in reversed(range(j, k)):
                e = factors[n] * torch.einsum("bij,bi->bj", jacobians[n], e)
            expected += torch.einsum("bi,bf->if", e, features[j]) * 2 / 3
    found = torch.cat([model.layers[0].weight.grad, model.layers[0].bias.grad[:, None]], 1)
    assert any(f < 0.99 for f in map(float, factors))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
