"""Values that are not finite teach nothing, change no state, are never sent, and are counted."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from synthgrad import Critic, Interface, RecurrentInterface
from synthgrad.models import MLP, Conv, Linear

BAD = [math.inf, -math.inf, math.nan]
MODELS = {
    "linear": (lambda: Linear(4), (6, 4)),
    "mlp, batch norm": (lambda: MLP(4, batch_norm=True), (6, 4)),
    "conv": (lambda: Conv(3), (6, 3, 4, 4)),
    "critic": (lambda: Critic(nn.Sequential(nn.Flatten(), nn.Linear(4, 6))), (6, 4)),
}
every_model = pytest.mark.parametrize(("make", "shape"), MODELS.values(), ids=MODELS.keys())
every_bad = pytest.mark.parametrize("bad", BAD)


def spoilt(shape, bad):
    h = torch.randn(shape)
    h.view(len(h), -1)[1, 2] = bad
    return h


def taught(make, shape):
    """An interface that has learnt, with an optimizer that has momentum and decay."""
    interface = Interface(make())
    optimizer = torch.optim.AdamW(interface.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        interface.receive(torch.randn(shape), torch.arange(6)).backward(torch.randn(shape))
        optimizer.step()
    optimizer.zero_grad()
    return interface, optimizer


@every_model
@every_bad
@pytest.mark.parametrize("what", ["message", "gradient", "both"])
@pytest.mark.parametrize("verb", ["receive", "fused", "fit"])
def test_it_moves_nothing(make, shape, bad, what, verb):
    interface, optimizer = taught(make, shape)
    before = copy.deepcopy(interface.state_dict())
    h = spoilt(shape, bad) if what != "gradient" else torch.randn(shape)
    delta = spoilt(shape, bad) if what != "message" else torch.randn(shape)
    if verb == "fit":
        interface.fit(h, delta, torch.arange(6)).backward()
    elif verb == "receive":
        interface.receive(h, torch.arange(6)).backward(delta)
    else:
        interface(h.requires_grad_(), torch.arange(6)).backward(delta)
        assert h.grad.isfinite().all()
    optimizer.step()
    assert all(p.grad is None for p in interface.parameters())
    assert interface.skipped == 1
    for name, value in interface.state_dict().items():
        if name not in ("skipped", "withheld") and not (
            (what == "gradient" and "running" in name) or "tracked" in name
        ):
            assert torch.equal(value, before[name]), name
    assert interface.regression_loss.isnan()


@every_model
@every_bad
def test_a_sender_gets_zero_for_a_message_that_is_not_finite(make, shape, bad):
    interface, _ = taught(make, shape)
    h = spoilt(shape, bad).requires_grad_()
    interface.send(h, torch.arange(6)).backward()
    assert (h.grad == 0).all()
    assert interface.withheld == 1


@every_bad
@pytest.mark.parametrize("verb", ["send", "fused", "recurrent"])
def test_an_answer_that_is_not_finite_is_withheld(bad, verb):
    interface = Interface(lambda h, context: torch.full_like(h, bad), unit=1.0)
    h = torch.randn(6, 4, requires_grad=True)
    if verb == "send":
        interface.send(h).backward()
    elif verb == "fused":
        interface(h).backward(torch.ones_like(h))
        assert interface.skipped == 1
    else:
        future = RecurrentInterface(interface, limit=0.1)
        future.send(h * 1.0).backward()
    assert (h.grad == 0).all()
    assert interface.withheld == 1


@every_bad
def test_the_input_model_learns_nothing_from_a_message_that_is_not_finite(bad):
    interface = Interface(Linear(4), input_model=nn.Linear(3, 4))
    interface.fit(spoilt((6, 4), bad), source=torch.randn(6, 3)).backward()
    assert all(p.grad is None for p in interface.parameters())
    assert interface.skipped == 1


def test_one_overflowing_activation_under_a_grad_scaler_leaves_all_finite():
    A, B, interface = nn.Sequential(nn.Linear(8, 16), nn.ReLU()), nn.Linear(16, 3), Interface(MLP(16, context=3))
    optimizers = [torch.optim.Adam(m.parameters(), lr=1e-3) for m in (A, B, interface)]
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    scaler.scale(torch.zeros(()))
    for step in range(40):
        x = torch.randn(32, 8)
        y = x[:, :3].argmax(1)
        x[0] *= 1e6 if step == 20 else 1.0
        h = A(x).half().float() if step == 20 else A(x)
        interface.send(h, y).backward()
        scaler.scale(F.cross_entropy(B(interface.receive(h, y)), y)).backward()
        for optimizer in optimizers[:2]:
            scaler.step(optimizer)
        optimizers[2].step()
        for optimizer in optimizers:
            optimizer.zero_grad()
        scaler.update()
    assert all(p.isfinite().all() for m in (A, B, interface) for p in m.parameters())
    assert scaler.get_scale() == 2.0**9
    assert interface.skipped == interface.withheld == 1


def test_half_precision_is_cut_off_at_its_range_and_counted():
    interface = Interface(Linear(64))
    nn.init.normal_(interface.gradient_model.layers[0].weight)
    interface.units.observe(torch.tensor(1e5))
    h = torch.randn(256, 64).half().requires_grad_()
    term = interface.send(h)
    term.backward()
    assert h.grad.isfinite().all()
    assert term.isfinite()
    assert interface.clamped == 1


def test_the_counts_are_saved():
    interface = Interface(Linear(4))
    interface.receive(torch.randn(3, 4)).backward(torch.full((3, 4), math.nan))
    other = Interface(Linear(4))
    other.load_state_dict(interface.state_dict())
    assert other.skipped == 1
