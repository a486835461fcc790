"""The scale of the loss and the size of the batch do not change what a gradient model learns."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from synthgrad import Interface, fused, unlocked
from synthgrad.models import Linear
from tests import reference

SCALES = {"sum": 8.0, "GradScaler": 65536.0, "tiny": 2.0**-20, "1000": 1000.0}
"""Factors on the mean of 8 examples. Powers of two change no bit; 1000 rounds differently."""


def sgd(parameters, factor):
    return torch.optim.SGD(parameters, lr=0.5 / factor)


def adam(parameters, factor):
    return torch.optim.Adam(parameters, lr=0.003, eps=1e-30)


def train(chain, factor, optimizer, mode, unit=None):
    """The parameters after 30 steps on ``factor`` times the mean loss."""
    parts = copy.deepcopy(chain.parts)
    interfaces = [Interface(Linear(5, context=3), unit=unit).double() for _ in parts[1:]]
    step_parts = optimizer([p for part in parts for p in part.parameters()], factor)
    step_models = torch.optim.SGD([p for i in interfaces for p in i.parameters()], lr=0.1)
    criterion = lambda out: chain.criterion(out) * factor  # noqa: E731
    for _ in range(30):
        step_parts.zero_grad()
        step_models.zero_grad()
        if mode == "chained":
            criterion(fused(parts, interfaces, chain.x, chain.y)).backward()
        else:
            for _k, loss in unlocked(parts, interfaces, chain.x, criterion, chain.y):
                loss.backward()
        step_parts.step()
        step_models.step()
    return [p.detach() for module in (*parts, *interfaces) for p in module.parameters()]


@pytest.mark.parametrize("mode", ["chained", "unlocked"])
@pytest.mark.parametrize("optimizer", [sgd, adam])
@pytest.mark.parametrize("scale", SCALES)
def test_the_loss_may_be_scaled(chain, equal, scale, optimizer, mode):
    mean, scaled = (train(chain, factor, optimizer, mode) for factor in (1.0, SCALES[scale]))
    exact = optimizer is sgd and scale != "1000"
    assert equal(scaled, mean, 0.0 if exact else 1e-10)
    assert not equal(mean[:2], chain.parameters()[:2], 1e-4)  # the lowest part did learn


def test_a_fixed_unit_depends_on_the_losss_scale(chain, equal):
    mean, scaled = (train(chain, factor, sgd, "chained", unit=1.0) for factor in (1.0, 1000.0))
    assert not equal(scaled, mean, 1e-3)


@pytest.mark.parametrize("decay", [0.0, 0.9, 0.99])
def test_unit_is_a_mean_of_root_mean_squares(decay):
    interface = Interface(Linear(4), unit_factor=8.0, unit_decay=decay).double()
    gradients = [torch.randn(3, 4, dtype=torch.float64) * 10**n for n in range(-2, 3)]
    gradients.insert(2, torch.zeros(3, 4, dtype=torch.float64))
    assert interface.unit == 1
    for n, delta in enumerate(gradients):
        interface.receive(torch.randn(3, 4, dtype=torch.float64)).backward(delta)
        expected = reference.followed_unit([g.numpy() for g in gradients[: n + 1]], 8.0, decay)
        np.testing.assert_allclose(interface.unit.item(), expected, rtol=1e-6)


def test_zeros_do_not_move_the_unit():
    interface = Interface(Linear(4))
    interface.receive(torch.randn(3, 4)).backward(torch.zeros(3, 4))
    assert interface.unit == 1
    assert all((p.grad == 0).all() for p in interface.parameters())
    assert interface.skipped == 0


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
@pytest.mark.parametrize("teach", ["receive", "fused", "fit"])
def test_values_that_are_not_finite_teach_nothing(bad, teach):
    interface = Interface(Linear(4))
    interface.receive(torch.randn(3, 4)).backward(torch.ones(3, 4))
    interface.zero_grad()
    before, h = interface.unit, torch.randn(3, 4, requires_grad=True)
    delta = torch.ones(3, 4)
    delta[1, 2] = bad
    if teach == "fit":
        interface.fit(h, delta).backward()
    else:
        (interface(h) if teach == "fused" else interface.receive(h)).backward(delta)
    assert interface.unit == before == 32
    assert interface.skipped == 1
    assert all(p.grad is None for p in interface.parameters())  # not zero, which momentum and decay would move
    if teach == "fused":
        assert (h.grad == 0).all()


def test_training_continues_after_a_grad_scaler_overflows(chain):
    parts = [part.float() for part in chain.parts]
    interfaces = [Interface(Linear(5, context=3)) for _ in parts[1:]]
    optimizers = [torch.optim.SGD(part.parameters(), lr=0.2) for part in parts]
    models = [torch.optim.Adam(interface.parameters(), lr=1e-3) for interface in interfaces]
    # 2^127 times any loss above 2 is infinite; the scale drops to 2^27 and stays there.
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, backoff_factor=2.0**-100)
    scaler.scale(torch.zeros(()))  # torch makes the scale here, and the first part steps before the loss is known
    losses = []
    criterion = lambda out: chain.criterion(out) * 4  # noqa: E731
    for step in range(60):
        for k, loss in unlocked(parts, interfaces, chain.x.float(), criterion, chain.y):
            optimizers[k].zero_grad()
            if k == 3:
                losses.append(loss.item())
                loss = scaler.scale(loss)
            loss.backward()
            scaler.unscale_(optimizers[k])
            scaler.step(optimizers[k])
            if k > 0:
                models[k - 1].step()
                models[k - 1].zero_grad()
        scaler.update()
        if step == 0:
            assert interfaces[2].skipped == 1
            assert all(i.unit == 1 for i in interfaces)
            assert all((p == 0).all() for i in interfaces for p in i.parameters())
    assert scaler.get_scale() == 2.0**27
    assert [i.skipped.item() for i in interfaces] == [0, 0, 1]
    assert losses[-1] < 0.9 * losses[0]
    assert all((p.isfinite()).all() for part in (*parts, *interfaces) for p in part.parameters())
    assert any((p != 0).any() for p in interfaces[0].parameters())


def test_unit_is_saved_and_loads_elsewhere(chain, tmp_path):
    interface, other = (Interface(Linear(4)) for _ in range(2))
    interface.receive(torch.randn(3, 4)).backward(torch.full((3, 4), 7.0))
    torch.save(interface.state_dict(), tmp_path / "interface.pt")
    other.load_state_dict(torch.load(tmp_path / "interface.pt", weights_only=True))
    assert other.unit == interface.unit
    assert torch.allclose(other.unit, torch.tensor(7.0 * 32))
    for each in (interface, other):  # and follows on in the same way
        each.receive(torch.randn(3, 4)).backward(torch.full((3, 4), 70.0))
    assert other.unit == interface.unit


def test_regression_loss_is_the_relative_squared_error():
    interface = Interface(lambda h, context: 0.5 * h, unit=1.0)
    interface.receive(h := torch.randn(6, 4)).backward(h)
    assert torch.allclose(interface.regression_loss, torch.tensor(0.25))
    interface = Interface(Linear(4))
    interface.receive(h).backward(h)
    assert torch.allclose(interface.regression_loss, torch.tensor(1.0))
    assert "regression_loss" not in interface.state_dict()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [1e-5, 1e-3, 1.0, 1000.0])
def test_units_survive_half_precision(dtype, size):
    net = nn.Sequential(nn.Linear(4, 4), Interface(Linear(4))).to(dtype)
    net(torch.randn(3, 4, dtype=dtype)).backward(torch.full((3, 4), size, dtype=dtype))
    assert abs(net[1].unit.item() / (32 * size) - 1) < 0.05
    assert all(p.grad.isfinite().all() for p in net[1].parameters())


@pytest.mark.parametrize("size", [1e-30, 1e-22, 1e22])
def test_units_of_gradients_whose_square_float32_cannot_hold(size):
    interface = Interface(Linear(4).double())
    interface.receive(torch.randn(3, 4, dtype=torch.float64)).backward(
        torch.full((3, 4), size, dtype=torch.float64)
    )
    assert interface.unit > 0
    assert all(p.grad.isfinite().all() for p in interface.parameters())


def test_regression_loss_of_an_overflow_is_not_zero():
    interface = Interface(Linear(4))
    interface.receive(torch.randn(3, 4)).backward(torch.full((3, 4), torch.inf))
    assert interface.regression_loss != 0


# --- batches of several sizes, outliers, precision, state ---------------------------------------------------


def ratio(interface, B, n, reduction):
    """‖δ̂‖/‖δ‖ of a batch, before M learns from it."""
    h = torch.randn(n, 16)
    y = h[:, :3].argmax(1)
    received = interface.receive(h, y)
    received.retain_grad()
    nn.functional.cross_entropy(B(received), y, reduction=reduction).backward()
    return (interface.synthetic_gradient(h, y).norm() / received.grad.norm()).item()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("sizes", [(128, 8), (64, 64, 64, 2), (32, 31, 1, 200)])
def test_the_unit_is_an_examples_whatever_the_batch(sizes, reduction):
    from synthgrad.models import MLP

    B, interface = nn.Linear(16, 3), Interface(MLP(16, context=3))
    optimizer, found = torch.optim.Adam(interface.parameters(), lr=3e-3), {}
    for step in range(600):
        n = sizes[step % len(sizes)]
        optimizer.zero_grad()
        found.setdefault(n, []).append(ratio(interface, B, n, reduction))
        optimizer.step()
    for values in found.values():
        assert 0.8 < sum(values[-20:]) / 20 < 1.25


@pytest.mark.parametrize("factor", [1e2, 1e6, 1e30])
@pytest.mark.parametrize("after", [20, 300])
def test_one_large_gradient_moves_the_unit_little(factor, after):
    interface = Interface(Linear(4), unit_factor=1.0)
    for _ in range(after):
        interface.receive(torch.randn(8, 4)).backward(torch.full((8, 4), 1.0))
    before = interface.unit.item()
    interface.receive(torch.randn(8, 4)).backward(torch.full((8, 4), factor))
    assert before < interface.unit.item() < 3 * before
    for _ in range(400):
        interface.receive(torch.randn(8, 4)).backward(torch.full((8, 4), 1.0))
    assert interface.unit.item() < 1.3 * before


@pytest.mark.parametrize("size", [1e-24, 1e-20, 1e-6, 1.0, 1e15, 3e19, 1e25])
def test_no_finite_gradient_is_taken_for_zero_or_infinite(size):
    interface = Interface(Linear(4))
    optimizer = torch.optim.Adam(interface.parameters(), lr=1e-2)
    h = torch.randn(256, 4)
    for _ in range(300):
        optimizer.zero_grad()
        interface.receive(h).backward(h * size)
        optimizer.step()
    assert interface.skipped == 0
    found = interface.synthetic_gradient(h).double().norm() / (h.double() * size).norm()
    assert abs(found.item() - 1) < 1e-3


@pytest.mark.parametrize("cast", ["half", "bfloat16", "float", "double"])
def test_a_cast_does_not_cast_the_statistics(cast):
    interface = Interface(Linear(4))
    interface.receive(torch.randn(3, 4)).backward(torch.full((3, 4), 2e-9))
    before = interface.unit.item()
    expected = copy.deepcopy(interface.units)
    getattr(interface, cast)()
    assert interface.unit.item() == pytest.approx(before, rel=1e-6)
    assert interface.units.seen.dtype is (torch.float64 if cast == "double" else torch.float32)
    dtype = interface.gradient_model.layers[0].weight.dtype
    for step in range(500):
        size = 1e-3 * 10 ** (-step / 500)
        interface.receive(torch.randn(3, 4, dtype=dtype)).backward(torch.full((3, 4), size, dtype=dtype))
        expected.update(torch.tensor(size), 3)
    assert interface.unit.item() == pytest.approx(expected.value.item(), rel=0.01)


def test_a_fixed_unit_keeps_its_value_and_a_measured_one_is_loaded():
    followed, fixed = Interface(Linear(4)), Interface(Linear(4), unit=2.0)
    followed.receive(torch.randn(3, 4)).backward(torch.ones(3, 4))
    state = followed.state_dict()
    followed.load_state_dict(fixed.state_dict())
    fixed.load_state_dict(state)
    assert fixed.unit == 2
    assert followed.unit == 1  # as before the first gradient
    assert followed.units.value_or_zero == 0


def test_a_recurrent_interface_keeps_the_unit_that_was_learnt():
    from synthgrad import RecurrentInterface

    interface = Interface(Linear(4)).double()
    interface.receive(torch.randn(3, 4).double()).backward(torch.ones(3, 4).double())
    before = interface.unit
    assert RecurrentInterface(interface).interface.unit == before
    assert before.dtype is torch.float64


def test_a_critics_unit_is_that_of_each_answer():
    """Two messages of different sizes under way, and a prediction for a third."""
    from synthgrad import Critic

    head = nn.Linear(6, 3)
    grads = []
    for way in ("one by one", "at once"):
        interface = Interface(Critic(copy.deepcopy(head), anchor=0.0))
        batches = [
            (torch.randn(n, 6, generator=torch.Generator().manual_seed(n)), torch.arange(n) % 3) for n in (64, 4)
        ]
        losses = []
        for h, y in batches:
            received = interface.receive(h, y)
            interface.synthetic_gradient(h[:3], y[:3])
            losses.append(nn.functional.cross_entropy(received @ torch.eye(6, 3), y))
            if way == "one by one":
                losses.pop().backward()
        if losses:
            sum(losses).backward()
        grads.append([p.grad for p in interface.parameters()])
    torch.testing.assert_close(*grads)
