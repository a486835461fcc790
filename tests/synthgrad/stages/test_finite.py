"""A value that is not finite teaches a stage nothing, moves nothing, and is not sent."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from synthgrad import Interface
from synthgrad.stages.finite import Buffers, are_finite, is_finite
from synthgrad.stages.stage import Stage
from tests.synthgrad.stages.test_stage import adam, interface, own, sgd, staged

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.complex64]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_one_nonfinite_element_is_found(dtype, value):
    t = torch.ones(3, 5).to(dtype)
    assert is_finite(t)
    if dtype == torch.float8_e4m3fn:  # it has no inf
        value = math.nan
    t = torch.where(torch.arange(15).view(3, 5) == 7, torch.tensor(value), torch.ones(())).to(dtype)
    assert not is_finite(t)
    if dtype != torch.float8_e4m3fn:
        assert not are_finite([torch.ones(2), t])
        assert not is_finite(torch.tensor([math.inf, -math.inf, 1]).to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_finite_elements_whose_sum_overflows_are_finite(dtype):
    large = torch.full((9, 9), torch.finfo(dtype).max, dtype=dtype)
    assert is_finite(large)
    assert are_finite([large, large])


def test_anything_but_floating_point_numbers_is_finite():
    for each in (None, "text", torch.tensor([1]), torch.tensor(True), torch.empty(0, 3)):
        assert is_finite(each)
    assert are_finite([])


def test_sparse_gradients_are_checked():
    table = nn.Embedding(4, 3, sparse=True)
    table(torch.tensor([1, 1])).sum().backward()
    assert are_finite([table.weight.grad])
    assert not are_finite([table.weight.grad * math.nan])


def unmoved(stage, act):
    """Run ``act``, check that it moves no weight, moment, buffer or unit, and return its result."""
    before = copy.deepcopy(stage.state_dict())
    result = act()
    after = stage.state_dict()
    assert str(before) == str(after)
    assert all(p.grad is None for p in own(stage))
    return result


@pytest.fixture
def warm(chain):
    """A stage with momentum, which moves weights even on a gradient of zero."""
    stage = staged(chain.parts[1], adam, above=interface())
    for _ in range(3):
        done = stage.step(chain.x, chain.y)
        assert stage.learn(done.message, chain.y, torch.randn(8, 5, dtype=torch.float64))
    assert stage.nonfinite == 0
    return stage


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_message_that_is_not_finite(chain, warm, value):
    x = chain.x.clone()
    x[2, 3] = value
    done = unmoved(warm, lambda: warm.step(x, chain.y))
    assert done == (None, None, None, "the message from below")
    assert unmoved(warm, lambda: warm.step(x, chain.y, first=True)).fault == "the data"
    assert warm.nonfinite == 2


@pytest.mark.parametrize("at", ["gradient", "message"])
def test_a_late_gradient_that_is_not_finite(chain, warm, at):
    h, delta = torch.randn(2, 8, 5, dtype=torch.float64)
    (delta if at == "gradient" else h)[0, 0] = math.nan
    assert unmoved(warm, lambda: warm.learn(h, chain.y, delta)) is False
    assert warm.nonfinite == 1


def test_an_output_that_overflows_does_not_change_running_means(chain):
    part = nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5)).double()
    stage = staged(part, adam, above=interface())
    stage.step(chain.x, chain.y)
    done = unmoved(stage, lambda: stage.step(torch.full((8, 5), 1.7e308, dtype=torch.float64), chain.y))
    assert done.fault == "the part's output"
    assert done.message is None
    before = part[1].running_mean.clone()
    assert stage.step(chain.x, chain.y).fault == ""
    assert not torch.equal(part[1].running_mean, before)


def test_a_loss_that_is_not_finite(chain):
    stage = staged(chain.parts[3], adam, criterion=lambda out, y: F.cross_entropy(out, y) + bad[0])
    bad = [0.0]
    stage.step(chain.x, chain.y)
    bad[0] = math.inf
    done = unmoved(stage, lambda: stage.step(chain.x, chain.y))
    assert done == (None, None, None, "the loss (inf)")


@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_synthetic_gradient_that_is_not_finite(chain, clip):
    """The message is finite, so it is sent: its gradient may repair the model."""
    answer = [1.0]
    stage = staged(chain.parts[1], adam, above=Interface(lambda h, c: h * answer[0], unit=1.0), clip=clip)
    stage.step(chain.x, chain.y)
    answer[0] = math.nan

    def act():
        done = stage.step(chain.x, chain.y)
        assert stage.above.withheld == 1  # the interface counts it, too; nothing else changes
        stage.above.withheld.zero_()
        return done

    done = unmoved(stage, act)
    assert "gradient" in done.fault
    assert done.message.isfinite().all()
    assert done.delta is None


def test_a_gradient_for_the_stage_below_that_is_not_finite(chain):
    class Down(torch.autograd.Function):
        @staticmethod
        def forward(ctx, h):
            return h.view_as(h)

        @staticmethod
        def backward(ctx, gradient):
            return gradient * math.nan

    class Part(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(5, 3).double()

        def forward(self, h):
            return self.linear(Down.apply(h))

    stage = staged(Part(), adam, criterion=F.cross_entropy)
    done = unmoved(stage, lambda: stage.step(chain.x, chain.y))
    assert done.fault == "the gradient for the stage below"
    assert done.delta is None


def test_huge_finite_gradients_are_used(chain):
    stage = staged(chain.parts[3].float(), sgd, criterion=lambda out, y: F.cross_entropy(out, y) * 1e30)
    before = [p.detach().clone() for p in own(stage)]
    assert stage.step(chain.x.float(), chain.y).fault == ""
    assert not all(map(torch.equal, own(stage), before))


def test_if_nothing_has_a_gradient_the_optimizer_is_not_called(chain):
    """A frozen part; and a model without parameters of its own."""
    part = chain.parts[1].requires_grad_(False)
    stage = Stage(part=part, optimizer=adam(part.parameters()), above=Interface(lambda h, context: h))
    stage.optimizer.step = None
    done = stage.step(chain.x, chain.y)
    assert done.fault == ""
    assert stage.learn(done.message, chain.y, done.message)


def test_the_first_nonfinite_parameter_is_named(warm):
    assert warm.nonfinite_parameter() == ""
    with torch.no_grad():
        next(warm.above.parameters()).fill_(math.inf)
    assert warm.nonfinite_parameter().startswith("above.gradient_model")


def test_only_buffers_that_are_written_to_are_copied():
    module = nn.Sequential(nn.BatchNorm1d(2), nn.Identity())
    module.register_buffer("table", torch.ones(1000))
    module.register_buffer("mean", torch.ones(2))
    buffers = Buffers()
    buffers.keep(module)
    table, mean, *running = (kept[2] for kept in buffers.kept)
    module(torch.randn(4, 2))
    module.mean.mul_(2)
    buffers.keep(module)
    again, new, *later = (kept[2] for kept in buffers.kept)
    assert again is table
    assert (mean.tolist(), new.tolist()) == ([1, 1], [2, 2])
    assert not torch.equal(later[0], running[0])
    module(torch.full((4, 2), math.nan))
    module.mean.fill_(math.nan)
    buffers.restore()
    assert torch.equal(module.mean, new)
    assert torch.equal(module[0].running_mean, later[0])
