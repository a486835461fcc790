"""M's unit measures the losses' gradients, not M's own predictions; and no prediction grows without bound."""

import pytest
import torch
from torch import nn

from synthgrad import Interface, RecurrentInterface
from synthgrad.models import Linear
from synthgrad.recurrent.chunk import SAMPLED

F64 = torch.float64


def grown(state, x):
    """A core that doubles whatever its state holds, so gradients double on the way back."""
    return 2 * state + x


def model():
    m = Linear(3).double()
    nn.init.eye_(m.layers[0].weight)
    return m


def run(future, chunks, send=True):
    state = torch.randn(4, 3, dtype=F64)
    for _ in range(chunks):
        state = grown(future.receive(state.detach() / 10), torch.randn(4, 3, dtype=F64).requires_grad_())
        loss = state.sin().sum() / 4
        (loss + future.send(state) if send else loss).backward()


@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_the_unit_is_that_of_the_losses_alone(scale):
    found = []
    for send in (True, False):
        torch.manual_seed(1)
        interface = Interface(model(), unit_factor=8.0)
        run(RecurrentInterface(interface, scale).double(), 30, send)
        found.append(interface.unit)
    assert found[0] > 0
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("limit", [0.5, 10.0])
def test_a_prediction_is_limited(limit):
    interface = Interface(model(), unit_factor=8.0)
    future = RecurrentInterface(interface, limit=limit).double()
    run(future, 5)
    with torch.no_grad():
        interface.gradient_model.layers[0].weight.mul_(1e6)
    run(future, 1)
    rms = future.answer.square().mean().sqrt()
    before = interface.unit / 8
    assert rms <= limit * before * 1.1  # the unit has moved a little since
    assert rms >= limit * before * 0.5


def test_a_small_prediction_is_sent_unchanged():
    interface = Interface(model(), unit_factor=8.0)
    future = RecurrentInterface(interface).double()
    run(future, 3)
    with torch.no_grad():
        interface.gradient_model.layers[0].weight.mul_(1e-3)
    state = torch.randn(4, 3, dtype=F64, requires_grad=True)
    future.send(state)
    torch.testing.assert_close(future.answer, interface.synthetic_gradient(state))


def test_a_fixed_unit_sets_no_limit():
    interface = Interface(model(), unit=1.0)
    future = RecurrentInterface(interface, limit=1e-9).double()
    state = torch.randn(4, 3, dtype=F64, requires_grad=True)
    future.send(state)
    assert torch.equal(future.answer, state)


def test_one_chunk_in_ten_is_measured_at_random_after_the_first_ten():
    interface = Interface(model())
    future = RecurrentInterface(interface).double()
    moved, before = [], None
    for _ in range(40 * SAMPLED):
        run(future, 1)
        moved.append(before is None or not torch.equal(interface.unit, before))
        before = interface.unit
    assert all(moved[:SAMPLED])
    later = [k for k in range(SAMPLED, len(moved)) if moved[k]]
    assert 20 < len(later) < 60  # about 39
    for period in range(2, 2 * SAMPLED + 1):  # no period of the data's can hide a chunk
        assert {k % period for k in later} == set(range(period)) or period > 12


@pytest.mark.parametrize("phase", range(0, 10, 3))
def test_a_loss_in_every_tenth_chunk_is_seen_whatever_its_phase(phase):
    interface = Interface(model(), unit_factor=1.0)
    future = RecurrentInterface(interface).double()
    state = torch.randn(32, 3, dtype=F64)
    for k in range(600):
        state = grown(future.receive(state.detach() / 10), torch.zeros(32, 3, dtype=F64).requires_grad_())
        loss = future.send(state)
        (loss + state.sum() / 32 if k % 10 == phase else loss).backward()
    assert abs(interface.unit.item() * 32 / 2 - 1) < 1e-6  # ∂(2h)/∂h / 32, where there is a loss


@pytest.mark.parametrize("omitted", [False, True])
def test_m_learns_nothing_from_rows_to_which_nothing_was_sent(omitted):
    """In a measured chunk a third of the rows lack the later losses; the others have the full target."""
    shown = []

    def m(h, context):
        shown.append(torch.ones_like(h).requires_grad_())
        return shown[-1]

    interface = Interface(m, unit_factor=1.0, unit=None if omitted else 1.0)
    future = RecurrentInterface(interface).double()
    for _ in range(2):  # the first is blind: nothing is sent before a unit is known
        state = grown(future.receive(torch.randn(6, 3, dtype=F64)), torch.zeros(6, 3, dtype=F64).requires_grad_())
        unit = interface.unit.item()
        (state.sum() / 6 + future.send(state)).backward()
    start = [each for each in shown if each.grad is not None][-1]
    missing = (start.grad == 0).all(dim=1)
    assert missing.sum() == (2 if omitted else 0)
    target = (start.detach() - start.grad * 3) * interface.unit  # 3 is half the batch
    torch.testing.assert_close(target[~missing], torch.full_like(target, 2 / 6 + 2 * unit)[~missing])
