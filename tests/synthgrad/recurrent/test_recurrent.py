"""Chunks of T steps with an exact M are full backpropagation through time; other duties of a boundary."""

import copy
import gc
import math
import pickle
import weakref

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_flatten, tree_map

from synthgrad import Interface, RecurrentInterface, compare, pack, unpack

F64 = torch.float64
STEPS, BATCH, IN, UNITS = 7, 4, 3, 5


class Steps(nn.Module):
    """A cell, run step by step; it shows the first tensor of its state."""

    def __init__(self, cell):
        super().__init__()
        self.cell = cell

    def forward(self, x, state=None):
        states = [state := self.cell(step, state) for step in x]
        return torch.stack([tree_flatten(each)[0][0] for each in states]), state


class TwoSpeeds(nn.Module):
    """A user's own cell, whose state is nested and has two sizes."""

    def __init__(self):
        super().__init__()
        self.fast, self.slow = nn.Linear(IN + UNITS + 2, UNITS), nn.Linear(UNITS, 2)

    def forward(self, step, state=None):
        state = state or {"fast": step.new_zeros(len(step), UNITS), "slow": [step.new_zeros(len(step), 2)]}
        fast = self.fast(torch.cat([step, state["fast"], *state["slow"]], dim=1)).tanh()
        return {"fast": fast, "slow": [0.9 * state["slow"][0] + 0.1 * self.slow(fast)]}


CORES = {
    "rnn": lambda: nn.RNN(IN, UNITS),
    "gru, two layers": lambda: nn.GRU(IN, UNITS, num_layers=2),
    "lstm": lambda: nn.LSTM(IN, UNITS),
    "lstm, two layers, batch first": lambda: nn.LSTM(IN, UNITS, num_layers=2, batch_first=True),
    "rnn cell": lambda: Steps(nn.RNNCell(IN, UNITS)),
    "gru cell": lambda: Steps(nn.GRUCell(IN, UNITS)),
    "lstm cell": lambda: Steps(nn.LSTMCell(IN, UNITS)),
    "own": lambda: Steps(TwoSpeeds()),
}
every_core = pytest.mark.parametrize("make", CORES.values(), ids=CORES.keys())


def time(core):
    return 1 if getattr(core, "batch_first", False) else 0


def sequence(core):
    x = torch.randn(STEPS, BATCH, IN, dtype=next(core.parameters()).dtype)
    return x.transpose(0, time(core))


def loss_of(out):
    return out.sin().sum() / BATCH


def first_state(core):
    """Not zero, so that the first chunk receives a message, too."""
    torch.manual_seed(5)
    return tree_map(torch.Tensor.detach, core(sequence(core))[1])


def full(core, x):
    """Backpropagation through time, in one go: the gradients of the core and of its first state."""
    start = pack(first_state(core)).requires_grad_()
    loss = loss_of(core(x, unpack(start, first_state(core)))[0])
    *gradients, of_state = torch.autograd.grad(loss, [*core.parameters(), start])
    return gradients, of_state


class Shown:
    """An M that shows its targets: its predictions are leaves, which get the regression's gradient."""

    def __init__(self, model):
        self.model, self.answers = model, []

    def __call__(self, h, context):
        self.answers.append(self.model(h, context).detach().requires_grad_())
        return self.answers[-1]

    def targets(self):
        return [a.detach() - a.grad * len(a) / 2 for a in self.answers if a.grad is not None]


def exact(core, x, factor=1.0):
    """An exact M: its context is the number of steps done, so it runs the others and differentiates."""

    def model(h, over):
        with torch.enable_grad():
            leaf = h.detach().requires_grad_()
            rest = x.narrow(time(core), over, STEPS - over)
            loss = loss_of(core(rest, unpack(leaf, first_state(core)))[0]) if over < STEPS else leaf.sum() * 0
            return factor * torch.autograd.grad(loss, leaf)[0]

    return Shown(model)


class Fixed(nn.Linear):
    """An M that ignores the context."""

    def forward(self, h, context=None):
        return super().forward(h)


def fixed(core):
    return Fixed(*2 * pack(first_state(core)).shape[1:]).double()


def losses(core, x, T, future):
    """An episode's chunks, one after the other."""
    state, over = first_state(core), 0
    for piece in x.split(T, dim=time(core)):
        state = future.receive(state, over)
        out, state = core(piece, state)
        over += piece.shape[time(core)]
        yield loss_of(out) + future.send(state, over)


def trained(core, x, T, scale=1.0, gamma=1.0, once=False, trust=False):
    """The core's gradients and M's targets after a pass in chunks, with a backward pass for each or one for all."""
    core.zero_grad()
    model = exact(core, x)
    found = losses(core, x, T, RecurrentInterface(Interface(model, unit=1.0), scale, gamma, trust=trust))
    for loss in [sum(found)] if once else found:
        loss.backward()
    return [p.grad.clone() for p in core.parameters()], model.targets()


@every_core
@pytest.mark.parametrize("T", [1, 2, 3, STEPS, STEPS + 2])
@pytest.mark.parametrize(("dtype", "close"), [(F64, 1e-12), (torch.float32, 1e-5)], ids=["double", "single"])
@pytest.mark.parametrize("trust", [False, True], ids=["", "trusted"])
def test_chunks_with_an_exact_model_are_full_backpropagation_through_time(equal, make, T, dtype, close, trust):
    core = make().to(dtype)
    x = sequence(core)
    gradients, of_state = full(core, x)
    found, targets = trained(core, x, T, trust=trust)
    assert equal(found, gradients, close)
    assert equal(targets[:1], [of_state], close)
    assert len(targets) == math.ceil(STEPS / T)


@every_core
@pytest.mark.parametrize(("scale", "gamma"), [(0.1, 1.0), (0.0, 1.0), (1.0, 0.5), (0.3, 0.7)])
@pytest.mark.parametrize("once", [False, True], ids=["backward per chunk", "backward per episode"])
def test_scale_weighs_the_cores_gradient_and_not_the_target(equal, make, scale, gamma, once):
    core = make().double()
    x = sequence(core)
    (whole, whole_targets), (cut, cut_targets) = trained(core, x, 3), trained(core, x, 3, 0.0, 0.0)
    found, targets = trained(core, x, 3, scale, gamma, once)
    assert equal(found, [b + scale * (a - b) for a, b in zip(whole, cut, strict=True)], 1e-12)
    assert equal(targets, [b + gamma * (a - b) for a, b in zip(whole_targets, cut_targets, strict=True)], 1e-12)
    assert not equal(whole, cut, 1e-3)
    assert not equal(whole_targets, cut_targets, 1e-3)


@every_core
@pytest.mark.parametrize("begin", ["zeros", "initial"])
def test_an_episode_that_ends_for_some_rows_does_not_affect_the_others(equal, make, begin):
    core = make().double()
    x, first, model = sequence(core), first_state(core), fixed(core)
    initial = tree_map(torch.zeros_like if begin == "zeros" else torch.cos, first)
    ends = torch.tensor([[1, 0, 1, 0], [0, 0, 1, 1], [1, 0, 0, 1]]).bool()
    together, state, done = RecurrentInterface(Interface(Shown(model), unit=1.0)), first, None
    for piece, now in zip(x.split(3, dim=time(core)), ends, strict=True):
        state = together.receive(state, None, done, None if begin == "zeros" else initial)
        out, state = core(piece, state)
        (loss_of(out) + together.send(state, None, now)).backward()
        done = now
    found, targets = [p.grad.clone() for p in core.parameters()], together.interface.gradient_model.targets()

    core.zero_grad()
    for row in range(BATCH):
        alone, mine = RecurrentInterface(Interface(Shown(model), unit=1.0)), x.narrow(1 - time(core), row, 1)
        state, begun = (unpack(pack(s)[row : row + 1], core(mine)[1]) for s in (first, initial))
        for k, piece in enumerate(mine.split(3, dim=time(core))):
            new = k > 0 and ends[k - 1, row]
            out, state = core(piece, begun if new else alone.receive(state))
            (loss_of(out) + (0 if ends[k, row] else alone.send(state))).backward()
            if new:
                assert not targets[k][row].any()
            else:
                assert equal([targets[k][row]], [alone.interface.gradient_model.targets()[-1][0]], 1e-12)
    assert equal(found, [p.grad for p in core.parameters()], 1e-12)


def test_without_a_state_nothing_is_received_and_nothing_taught():
    core, model = nn.GRU(IN, UNITS), Shown(lambda h, context: h)
    future = RecurrentInterface(Interface(model))
    assert future.receive(None, done=torch.ones(BATCH).bool()) is None
    out, state = core(sequence(core), None)
    (loss_of(out) + future.send(state)).backward()
    assert model.targets() == []
    assert future.quality is None
    assert math.isnan(future.r2)


@every_core
def test_eval_is_the_identity_and_keeps_the_graph(equal, make):
    core = make().double()
    x = sequence(core)
    model = exact(core, x)
    future = RecurrentInterface(Interface(model, unit=1.0), scale=0.1).eval()
    sum(losses(core, x, 3, future)).backward()
    assert equal([p.grad for p in core.parameters()], full(core, x)[0], 1e-12)
    assert future.send(first_state(core)) == 0
    assert model.answers == []


@every_core
@pytest.mark.parametrize(("lam", "factor"), [(1.0, -1.0), (0.0, 1.0), (0.5, 1.0)])
def test_fused_inside_a_chunk_passes_back_what_backprop_would(equal, make, lam, factor):
    core = make().double()
    x = sequence(core)
    gradients, of_state = full(core, x)
    model, over, loss = exact(core, x, factor), 0, 0
    future = RecurrentInterface(Interface(model, lam=lam, unit=1.0))
    state = future.receive(first_state(core), 0)
    for piece in x.split(2, dim=time(core)):
        out, state = core(piece, future(state, over) if over else state)
        over, loss = over + piece.shape[time(core)], loss + loss_of(out)
    loss.backward()
    assert equal([p.grad for p in core.parameters()], gradients, 1e-12)
    assert equal(model.targets(), [factor * a.detach() for a in model.answers], 1e-12)
    assert equal(model.targets()[:1], [of_state], 1e-12)


def test_an_lstms_hidden_state_may_be_sent_alone(equal):
    core, model = nn.LSTM(IN, UNITS).double(), Fixed(UNITS, UNITS).double()
    x, (h, c) = sequence(core), first_state(core)
    future = RecurrentInterface(Interface(Shown(model), unit=1.0), only=(0,))
    out, state = core(x, future.receive((h, c.requires_grad_())))
    (loss_of(out) + future.send(state)).backward()
    found = [p.grad for p in core.parameters()]
    assert c.grad is None

    out, (end, _) = core(x, (h.requires_grad_(), c.detach()))
    loss = loss_of(out) + (model(end[0]).detach() * end[0]).sum()
    *expected, delta = torch.autograd.grad(loss, [*core.parameters(), h])
    assert equal(found, expected, 1e-12)
    assert equal(future.interface.gradient_model.targets(), [delta[0]], 1e-12)


@every_core
@pytest.mark.parametrize("good", [True, False])
def test_a_probe_compares_with_full_backpropagation_through_time_and_leaves_no_trace(equal, make, good):
    core = make().double()
    x, state, loss, messages = sequence(core), first_state(core), 0, []
    model = exact(core, x) if good else Shown(fixed(core))
    future = RecurrentInterface(Interface(model, unit=1.0 if good else 2.0), scale=0.1, gamma=0.5)
    found = future.probe(lambda: sum(losses(core, x, 3, future)))
    with pytest.raises(ZeroDivisionError):
        future.probe(lambda: 1 / 0)
    assert model.targets() == []
    assert math.isnan(future.r2)
    assert all(p.grad is None for p in core.parameters())
    sum(losses(core, x, 3, future))
    assert future.start is not None  # a boundary again

    for piece in x.split(3, dim=time(core)):
        out, state = core(piece, state)
        messages.append(pack(state))
        state, loss = unpack(messages[-1], state), loss + loss_of(out)
    true = torch.autograd.grad(loss, messages[:-1])
    for each, over, h, delta in zip(found, (3, 6), messages, true, strict=False):
        expected = compare(delta if good else 2 * model(h, over), delta)
        assert vars(each) == pytest.approx(vars(expected), rel=1e-9, abs=1e-12)
    assert len(found) == len(true) == 2


def test_a_probe_passes_true_gradients_inside_a_chunk_too():
    core = nn.GRU(IN, UNITS).double()
    x = sequence(core)
    model, start = Shown(fixed(core)), first_state(core).requires_grad_()
    future = RecurrentInterface(Interface(model, lam=0.0, unit=2.0))

    def episode():
        state = future.receive(start)
        for piece in x.split(2):
            out, state = core(piece, future(state))
            yield loss_of(out)

    (found,) = future.probe(lambda: sum(episode()))
    expected = compare(2 * model(pack(start), None), full(core, x)[1])
    assert vars(found) == pytest.approx(vars(expected), rel=1e-9)
    assert model.targets() == []


@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_a_finished_chunk_is_freed(scale):
    core = nn.GRU(IN, UNITS).double()
    future, old = RecurrentInterface(Interface(fixed(core)), scale), []
    for loss in losses(core, sequence(core), 2, future):
        loss.backward()
        old.append(weakref.ref(future.start.message))
    del loss
    gc.collect()
    assert [each() is None for each in old] == [True, True, True, False]


@pytest.mark.parametrize(("factor", "cosine", "r2"), [(1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (-1.0, -1.0, -3.0)])
@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_r2_and_quality_measure_the_predictions(factor, cosine, r2, scale):
    core = nn.GRU(IN, UNITS).double()
    x = sequence(core)
    model = exact(core, x, factor)
    future = RecurrentInterface(Interface(model, unit=1.0), scale)

    def chunks(n, times=1.0):
        for _ in range(n):
            (next(losses(core, x, STEPS, future)) * times).backward()

    chunks(12)
    assert future.r2 == pytest.approx(r2, abs=1e-6)
    assert future.quality.cosine == pytest.approx(cosine)
    assert future.quality.relative_error == pytest.approx(abs(1 - factor))
    chunks(12, math.nan)
    assert future.r2 == pytest.approx(r2, abs=1e-6)
    model.model = exact(core, x, 0.0 if factor else 1.0)
    chunks(12)
    assert 0.001 < abs(future.r2 - r2) < 0.5  # it follows slowly


@pytest.mark.parametrize(("factor", "slope"), [(1.0, 1.0), (4.0, 0.25), (0.5, 1.0), (-1.0, 0.0), (0.0, 1.0)])
def test_trust_scales_a_prediction_by_its_slope_on_the_target(equal, factor, slope):
    core = nn.GRU(IN, UNITS).double()
    x = sequence(core)
    model = exact(core, x, factor)
    plain, trusted = (
        RecurrentInterface(Interface(model, unit=1.0), trust=trust).double() for trust in (False, True)
    )
    for future in (plain, trusted):
        for _ in range(12):
            next(losses(core, x, STEPS, future)).backward()
        next(losses(core, x, 3, future))  # which sends an answer
    assert plain.slope == 1
    assert trusted.slope.item() == pytest.approx(slope)
    assert equal([trusted.answer], [plain.answer * slope], 1e-12)
    (next(losses(core, x, STEPS, trusted)) * math.nan).backward()
    assert trusted.slope.item() == pytest.approx(slope)


def test_refused():
    for gamma in (-0.1, 1.5, math.nan):
        with pytest.raises(ValueError, match=f"gamma is {gamma}; it discounts"):
            RecurrentInterface(Interface(Fixed(3, 3)), gamma=gamma)
    with pytest.raises(ValueError, match=r"scale is 0.1 and would discount .* give it to RecurrentInterface"):
        RecurrentInterface(Interface(Fixed(3, 3), scale=0.1))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda future: pickle.loads(pickle.dumps(future))])
def test_a_copy_may_be_taken_in_the_middle_of_a_chunk(equal, copied):
    core = nn.GRU(IN, UNITS).double()
    x = sequence(core)
    future = RecurrentInterface(Interface(fixed(core))).double()
    next(losses(core, x, 3, future)).backward()
    loss, other = next(losses(core, x, 3, future)), copied(future)
    assert other.start is other.answer is other.quality is None
    loss.backward()
    other.load_state_dict(future.state_dict())
    future.zero_grad()
    for each in (future, other):
        sum(losses(core, x, 3, each)).backward()
    assert equal(*([p.grad for p in each.parameters()] for each in (future, other)))
    assert other.r2 == future.r2


def test_an_empty_batch_teaches_nothing():
    core, future = nn.LSTM(IN, UNITS), RecurrentInterface(Interface(Fixed(2 * UNITS, 2 * UNITS)), scale=0.1)
    state = future.receive((torch.zeros(1, 0, UNITS), torch.zeros(1, 0, UNITS)))
    out, state = core(torch.zeros(2, 0, IN), state)
    (out.sum() + future.send(state, done=torch.zeros(0).bool())).backward()
    assert not any(p.grad.any() for p in future.parameters())
    assert math.isnan(future.r2)
    assert math.isnan(future.quality.relative_error)
