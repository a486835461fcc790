"""A stage learns exactly what autograd gives by hand, bit for bit, and nothing else moves."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from synthgrad import Interface
from synthgrad.models import MLP
from synthgrad.stages.stage import Stage

UNIT = 0.5
"""A power of two, like the batch of 8, so that dividing by it is exact."""


def interface(**settings):
    model = MLP(5, hidden=4, context=3).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return Interface(model, **{"unit": UNIT, **settings}).double()


def own(stage):
    models = [stage.above and stage.above.gradient_model, stage.below and stage.below.input_model]
    modules = [stage.part, *(model for model in models if isinstance(model, nn.Module))]
    return [parameter for module in modules for parameter in module.parameters()]


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1)


def adam(parameters):
    return torch.optim.Adam(parameters, lr=0.01)


def staged(part, optimizer=sgd, **settings):
    stage = Stage(part=part, optimizer=torch.optim.SGD(part.parameters()), **settings)
    stage.optimizer = optimizer(own(stage))
    return stage


def moved(stage, optimizer, gradients):
    """The stage's parameters after a step of a fresh optimizer on these gradients; None is none."""
    twins = [p.detach().clone().requires_grad_() for p in own(stage)]
    for twin, gradient in zip(twins, gradients, strict=True):
        twin.grad = gradient
    optimizer(twins).step()
    return [twin.detach() for twin in twins]


@pytest.fixture
def middle(chain):
    """A stage with one above and, for its input model, one below."""
    input_model = nn.Sequential(nn.Linear(5, 5), nn.Tanh()).double()
    below = Interface(lambda h, context: h * math.nan, input_model)
    return staged(chain.parts[1], above=interface(), below=below, data=lambda step: (chain.x, chain.y))


# --- a step ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [sgd, adam])
def test_a_step_is_backprop_from_the_synthetic_gradient(chain, equal, optimizer):
    stage = staged(chain.parts[1], optimizer, above=interface())
    leaf = chain.x.clone().requires_grad_()
    out = stage.part(leaf)
    delta_hat = stage.above.gradient_model(out.detach(), chain.y).detach() * UNIT
    *gradients, delta = torch.autograd.grad(out, [*stage.part.parameters(), leaf], delta_hat)
    expected = moved(stage, optimizer, [*gradients, *[None] * len(own(stage)[len(gradients) :])])
    before = [p.detach().clone() for p in own(stage)]

    done = stage.step(chain.x, chain.y)
    assert equal([done.message, done.delta], [out, delta])
    assert done.loss is None
    assert not done.message.requires_grad
    assert not done.delta.requires_grad
    assert equal(own(stage), expected)
    changed = [not torch.equal(a, b) for a, b in zip(own(stage), before, strict=True)]
    assert changed == [True] * len(gradients) + [False] * (len(before) - len(gradients))


def test_the_last_stage_learns_from_the_task(chain, equal):
    stage = staged(chain.parts[3], criterion=F.cross_entropy)
    leaf = chain.x.clone().requires_grad_()
    loss = F.cross_entropy(stage.part(leaf), chain.y)
    *gradients, delta = torch.autograd.grad(loss, [*own(stage), leaf])
    expected = moved(stage, sgd, gradients)
    done = stage.step(chain.x, chain.y)
    assert done.message is None
    assert equal([done.delta, done.loss], [delta, loss])
    assert not done.loss.requires_grad
    assert equal(own(stage), expected)
    assert math.isnan(stage.regression_loss)


def test_the_first_stage_sends_nothing_down(chain):
    stage = staged(chain.parts[0], above=interface())
    assert stage.step(chain.x, chain.y, first=True).delta is None
    assert chain.x.grad is None
    assert not chain.x.requires_grad


def test_a_step_does_not_change_its_message(chain):
    stage = staged(chain.parts[1], above=interface())
    h = chain.parts[0](chain.x)
    stage.step(h, chain.y)
    assert all(p.grad is None for p in chain.parts[0].parameters())
    assert h.grad_fn is not None


def test_two_steps_share_no_gradients(chain, equal):
    stage = staged(chain.parts[1], above=interface())
    for _ in range(2):
        leaf = chain.x.clone().requires_grad_()
        out = stage.part(leaf)
        delta_hat = stage.above.gradient_model(out.detach(), chain.y).detach() * UNIT
        gradients = torch.autograd.grad(out, list(stage.part.parameters()), delta_hat)
        expected = moved(stage, sgd, [*gradients, *[None] * (len(own(stage)) - len(gradients))])
        stage.step(chain.x, chain.y)
        assert equal(own(stage), expected)


def test_a_long_gradient_is_clipped_a_short_one_is_not(chain):
    lengths = {}
    for clip in (None, 1e-4, 1e4):
        stage = staged(copy.deepcopy(chain.parts[3]), lambda p: torch.optim.SGD(p, lr=1.0), clip=clip,
                       criterion=F.cross_entropy)  # fmt: skip
        before = [p.detach().clone() for p in own(stage)]
        stage.step(chain.x, chain.y)
        moves = [(p - q).flatten() for p, q in zip(own(stage), before, strict=True)]
        lengths[clip] = torch.cat(moves).norm().item()
    assert lengths[1e-4] == pytest.approx(1e-4, rel=1e-3)
    assert lengths[1e4] == lengths[None] > 1e-2


def test_an_empty_batch(chain, middle):
    h, y = chain.x[:0], chain.y[:0]
    done = middle.step(h, y)
    assert done.message.shape == done.delta.shape == (0, 5)
    middle.learn(done.message, y, torch.empty(0, 5, dtype=torch.float64))
    middle.learn_input(h, h)
    assert all(p.isfinite().all() for p in own(middle))


@pytest.mark.parametrize("conditioned", [True, False])
def test_the_model_sees_the_context_only_if_conditioned(chain, conditioned):
    seen = []

    def model(h, context):
        seen.append(context)
        return h

    stage = Stage(part=chain.parts[1], optimizer=sgd(chain.parts[1].parameters()),
                  above=Interface(model), conditioned=conditioned)  # fmt: skip
    done = stage.step(chain.x, chain.y)
    stage.learn(done.message.clone(), chain.y, done.message)
    assert len(seen) == 2
    assert all((context is chain.y) if conditioned else (context is None) for context in seen)


def test_each_activity_is_timed(chain, middle):
    from contextlib import contextmanager

    activities, inside = [], []

    @contextmanager
    def timed(kind):
        assert not inside
        inside.append(kind)
        yield
        activities.append(inside.pop())

    middle.timed = timed
    done = middle.step(chain.x, chain.y)
    assert activities == ["forward", "backward", "update"]
    middle.learn(done.message, chain.y, done.message)
    middle.learn_input(chain.x, chain.x)
    assert activities[3:] == ["fit", "fit"]


# --- late gradients ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [sgd, adam])
def test_a_late_gradient_teaches_the_model_the_regression(chain, equal, optimizer):
    stage = staged(chain.parts[1], optimizer, above=interface())
    h, delta = torch.randn(8, 5, dtype=torch.float64), torch.randn(8, 5, dtype=torch.float64)
    model = list(stage.above.gradient_model.parameters())
    error = stage.above.gradient_model(h, chain.y) - delta / UNIT
    gradients = torch.autograd.grad(error.square().sum() / 8, model)
    expected = moved(stage, optimizer, [*[None] * (len(own(stage)) - len(model)), *gradients])
    stage.learn(h, chain.y, delta)
    assert equal(own(stage), expected)
    relative = (UNIT * error).square().sum() / delta.square().sum()
    assert stage.regression_loss == pytest.approx(relative.item(), rel=1e-5)


def test_a_gradient_in_time_teaches_the_same_as_the_receivers_own_backward(chain, equal):
    """Also with a unit that follows the gradients."""
    stage = staged(chain.parts[1], adam, above=interface(unit=None))
    for _ in range(4):
        h, delta = torch.randn(8, 5, dtype=torch.float64), torch.randn(8, 5, dtype=torch.float64)
        twin = copy.deepcopy(stage)
        twin.above.receive(h, chain.y).backward(delta)
        twin.optimizer.step()
        stage.learn(h, chain.y, delta)
        assert equal(own(stage), own(twin))
        assert equal([stage.above.unit], [twin.above.unit])


def test_an_input_model_learns_the_message(chain, equal, middle):
    h = torch.randn(8, 5, dtype=torch.float64)
    model = list(middle.below.input_model.parameters())
    error = middle.below.input_model(chain.x) - h
    gradients = torch.autograd.grad(error.square().sum() / 8, model)
    expected = moved(middle, sgd, [*[None] * (len(own(middle)) - len(model)), *gradients])
    assert equal([middle.synthetic_input(chain.x)], [middle.below.input_model(chain.x)])
    assert not middle.synthetic_input(chain.x).requires_grad
    middle.learn_input(chain.x, h)
    assert equal(own(middle), expected)


@pytest.mark.parametrize("shape", [(8, 4), (7, 5), (8, 5, 1), (8,)])
def test_a_gradient_of_another_shape_is_refused(chain, shape):
    stage = staged(chain.parts[1], above=interface())
    with pytest.raises(ValueError, match=r"the gradient has shape .*, its message \(8, 5\)"):
        stage.learn(chain.x, chain.y, torch.ones(shape, dtype=torch.float64))


# --- a valid stage -----------------------------------------------------------------------------------------


def test_a_stage_has_an_interface_above_or_a_criterion(chain):
    for settings in ({}, {"above": interface(), "criterion": F.cross_entropy}):
        with pytest.raises(ValueError, match="an interface above it or, if it is the last one, a criterion"):
            staged(chain.parts[1], **settings)


def test_a_stage_with_an_input_model_needs_data(chain):
    below = Interface(MLP(5).double(), nn.Linear(5, 5).double())
    with pytest.raises(ValueError, match="needs the data that its input model sees"):
        staged(chain.parts[3], below=below, criterion=F.cross_entropy)
    assert staged(
        chain.parts[3], below=below, criterion=F.cross_entropy, data=lambda step: (chain.x, None)
    ).unlocked
    without = staged(chain.parts[3], below=Interface(MLP(5).double()), criterion=F.cross_entropy)
    assert not without.unlocked


def test_a_stage_resumes_from_its_state(chain, equal, middle):
    """Weights, momenta, units and both models are the same after the same steps, bit for bit."""

    def fresh():
        torch.manual_seed(7)
        part, input_model = nn.Sequential(nn.Linear(5, 5), nn.Tanh()).double(), nn.Linear(5, 5).double()
        below = Interface(MLP(5).double(), input_model)
        return staged(part, adam, above=interface(unit=None), below=below, data=lambda step: (chain.x, chain.y))

    def go(stage, steps):
        found = []
        for step in steps:
            torch.manual_seed(step)
            h, delta = torch.randn(2, 8, 5, dtype=torch.float64)
            done = stage.step(h, chain.y)
            stage.learn(done.message, chain.y, delta)
            stage.learn_input(chain.x, h)
            found += [done.message, done.delta]
        return found

    stage = fresh()
    go(stage, range(3))
    state = copy.deepcopy(stage.state_dict())
    expected, twin = go(stage, range(3, 6)), fresh()
    assert not equal(own(twin), own(stage))
    twin.load_state_dict(state)
    assert equal(go(twin, range(3, 6)), expected)
    assert equal(own(twin), own(stage))
    assert equal([twin.above.unit], [stage.above.unit])
    assert set(state) == {"part", "optimizer", "above", "below"}


def test_the_state_of_a_last_stage_is_its_part_and_optimizer(chain):
    assert set(staged(chain.parts[3], criterion=F.cross_entropy).state_dict()) == {"part", "optimizer"}
