"""At a chunk's start A predicts M's prediction for its end; its error couples the chunks."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from synthgrad import AuxiliaryTask, Interface, RecurrentInterface
from synthgrad.models import MLP

F64 = torch.float64
T, BATCH, IN, UNITS = 3, 4, 2, 5


def warm(seed):
    """A model that sees the message and a label."""
    torch.manual_seed(seed)
    made = MLP(UNITS, hidden=7, context=3).double()
    for p in made.parameters():
        nn.init.normal_(p, std=0.4)
    return made


M, A = warm(1), warm(2)


class Shown:
    """An M that shows its targets: its predictions are leaves, which get the regression's gradient."""

    def __init__(self):
        self.answers = []

    def __call__(self, h, context):
        self.answers.append(M(h, context).detach().requires_grad_())
        return self.answers[-1]

    def target(self):
        return next(a.detach() - a.grad * len(a) / 2 for a in reversed(self.answers) if a.grad is not None)


@dataclass
class Chunk:
    start: Tensor
    end: Tensor
    context: Tensor
    unit: Tensor  # before the gradient has come
    term: Tensor | float
    delta: Tensor  # the gradient at the start
    of_core: list[Tensor]
    of_a: list[Tensor | None]

    def error(self, h):
        """A's target, in M's units."""
        return A(h, self.context) - M(self.end, self.context + 1).detach()


def run(weight=None, task=1.0, only=(0, 1), **settings):
    """Two chunks with a backward pass each, some with an auxiliary loss; no model moves."""
    torch.manual_seed(4)
    core, x = nn.GRU(IN, UNITS).double(), torch.randn(2, T, BATCH, IN, dtype=F64)
    state, context, chunks = torch.randn(1, BATCH, UNITS, dtype=F64), torch.arange(BATCH) % 2, []
    model, auxiliary = Shown(), AuxiliaryTask(A, weight or 0.0)
    interface = Interface(model, **settings).double()
    future = RecurrentInterface(interface, scale=0.3, gamma=0.9)
    for k in (0, 1):
        core.zero_grad()
        A.zero_grad()
        start, unit = state[0].detach(), interface.unit
        out, state = core(x[k], future.receive(state, context))
        loss = task * out.sin().sum() / BATCH + future.send(state, context + 1)
        term = auxiliary(future) if weight is not None and k in only else 0.0
        (loss + term).backward()
        grads = [[p.grad for p in module.parameters()] for module in (core, A)]
        delta = model.target() * interface.unit
        chunks.append(Chunk(start, state[0].detach(), context, unit, term, delta, *grads))
    return chunks


def rms(x):
    return x.square().mean().sqrt()


def test_a_is_regressed_on_ms_prediction_at_the_end(equal):
    for chunk in run(1.0, unit=0.5):
        loss = chunk.error(chunk.start).square().sum(dim=1).mean()
        assert chunk.term.item() == pytest.approx(loss.item(), rel=1e-12)
        assert equal(chunk.of_a, torch.autograd.grad(loss, list(A.parameters())), 1e-12)


@pytest.mark.parametrize("weight", [0.25, 1.0, 3.0])
def test_at_the_start_it_adds_weight_times_its_error_and_points_along_its_gradient(equal, weight):
    for plain, chunk in zip(run(unit=0.5), run(weight, unit=0.5), strict=True):
        h = chunk.start.requires_grad_()
        error = chunk.error(h)
        (direction,) = torch.autograd.grad(error.square().sum(), h)
        size = weight * rms(error.detach() * 0.5)
        assert equal([chunk.delta - plain.delta], [direction / rms(direction) * size], 1e-12)


def test_weight_zero_teaches_a_alone(equal):
    for plain, chunk in zip(run(), run(0.0), strict=True):
        assert equal([chunk.delta, *chunk.of_core], [plain.delta, *plain.of_core])
        assert all(g.any() for g in chunk.of_a)


def test_it_grows_with_the_tasks_loss():
    small, large = ([run(w, task, only=(1,))[1].delta for w in (None, 1.0)] for task in (1.0, 1000.0))
    of_auxiliary = small[1] - small[0]
    assert rms(of_auxiliary) > 0.1 * rms(small[0])
    torch.testing.assert_close(large[1] - large[0], 1000 * of_auxiliary, rtol=1e-6, atol=0)


def test_it_is_zero_before_a_first_chunk_has_been_sent_and_in_eval():
    future, auxiliary, state = (
        RecurrentInterface(Interface(M)),
        AuxiliaryTask(A),
        torch.randn(1, BATCH, UNITS, dtype=F64),
    )
    context = torch.arange(BATCH) % 3
    assert auxiliary(future) == 0
    future.send(state.clone().requires_grad_(), context)
    assert auxiliary(future) == 0
    assert future.receive(None) is None
    assert auxiliary(future) == 0
    untouched = RecurrentInterface(Interface(M))
    untouched.receive(state, context)
    assert auxiliary(untouched) == 0
    untouched.send(state.clone().requires_grad_(), context)
    assert auxiliary(untouched) > 0
    assert auxiliary.eval()(untouched) == 0


def test_without_a_send_the_previous_chunks_prediction_does_not_count():
    core, future = nn.GRU(IN, UNITS).double(), RecurrentInterface(Interface(M, unit=1.0))
    state, context = torch.randn(1, BATCH, UNITS, dtype=F64), torch.arange(BATCH) % 3
    _, state = core(torch.randn(T, BATCH, IN, dtype=F64), future.receive(state, context))
    future.send(state, context).backward()
    core(torch.randn(T, BATCH, IN, dtype=F64), future.receive(state, context))
    assert AuxiliaryTask(A)(future) == 0


def test_no_gradient_reaches_an_episode_that_has_ended():
    core, model, done = nn.GRU(IN, UNITS).double(), Shown(), torch.tensor([True, False, False, True])
    future = RecurrentInterface(Interface(model, unit=1.0))
    state, context = torch.randn(1, BATCH, UNITS, dtype=F64), torch.arange(BATCH) % 3
    _, state = core(torch.randn(T, BATCH, IN, dtype=F64), future.receive(state, context, done))
    (future.send(state, context) + AuxiliaryTask(A)(future)).backward()
    assert (model.target() == 0).all(dim=1).tolist() == done.tolist()


def test_the_second_chunks_error_changes_what_m_learns_at_the_boundary_and_nothing_else(equal):
    """Later M's prediction makes the first chunk keep what the second needs: the two are coupled."""
    plain, coupled = run(unit=1.0), run(1.0, only=(1,), unit=1.0)
    for a, b in zip(plain, coupled, strict=True):
        assert equal(a.of_core, b.of_core)
    assert equal([plain[0].delta], [coupled[0].delta])
    assert not equal([plain[1].delta], [coupled[1].delta], 0.01)


def test_with_two_streams_the_one_sent_last_must_be_the_one_received_last():
    future, auxiliary = RecurrentInterface(Interface(lambda h, c: h, unit=1.0)), AuxiliaryTask(lambda h, c: h)
    a, b = (future.receive(torch.randn(1, BATCH, UNITS, dtype=F64)) for _ in range(2))
    future.send(b * 2)
    assert auxiliary(future) > 0
    future.send(a * 2)
    with pytest.raises(ValueError, match="one stream alone"):
        auxiliary(future)
