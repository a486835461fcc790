"""Senders learn from a frozen copy of M; M itself learns from every gradient."""

import copy

import pytest
import torch
from torch import nn

from synthgrad import Critic, Interface
from synthgrad.models import Linear

F64 = torch.float64


def model():
    m = Linear(4, context=3).double()
    for p in m.parameters():
        nn.init.normal_(p)
    return m


def message():
    return torch.randn(6, 4, dtype=F64, requires_grad=True), torch.arange(6) % 3


def sent(interface, h, y):
    """The gradient that a sender gets."""
    return torch.autograd.grad(interface.send(h, y), h)[0]


def taught(interface):
    """Teach M one gradient; return its parameters from before."""
    before = copy.deepcopy(interface.gradient_model)
    h, y = message()
    interface.receive(h, y).backward(torch.randn_like(h))
    with torch.no_grad():
        for p in interface.gradient_model.parameters():
            p -= 0.1 * p.grad
            p.grad = None
    return before


@pytest.mark.parametrize("every", [1, 3])
def test_senders_get_the_old_prediction_until_the_copy_is_refreshed(every):
    interface = Interface(model(), target_every=every, unit=0.5).double()
    h, y = message()
    old = copy.deepcopy(interface.gradient_model)
    for n in range(1, 8):
        before = taught(interface)
        if n % every == 0:  # taken as the gradient arrives, before an optimizer has moved M along it
            old = before
        assert torch.equal(sent(interface, h, y), 0.5 * old(h, y))
        assert not torch.equal(interface.gradient_model(h, y), old(h, y))


@pytest.mark.parametrize("teach", ["receive", "fused", "fit"])
def test_every_gradient_teaches_the_live_model(equal, teach):
    live = Interface(model(), target_every=100).double()
    plain = Interface(copy.deepcopy(live.gradient_model)).double()
    for interface in (live, plain):
        torch.manual_seed(1)
        for _ in range(3):
            h, y = message()
            interface.send(h, y)  # its answer is no use to the receiver
            if teach == "fit":
                interface.fit(h, torch.ones_like(h), y).backward()
            else:
                (interface(h, y) if teach == "fused" else interface.receive(h, y)).backward(torch.ones_like(h))
    assert equal(*([p.grad for p in i.gradient_model.parameters()] for i in (live, plain)))
    assert live.unit == plain.unit
    assert live.target.gradients == 3
    assert all(p.grad is None and not p.requires_grad for p in live.target.parameters())


@pytest.mark.parametrize("lam", [0.0, 0.25, 1.0])
def test_the_fused_call_passes_the_copys_answer_down(lam):
    interface = Interface(model(), lam=lam, scale=0.5, target_every=3, unit=2.0).double()
    taught(interface)
    h, y = message()
    delta = torch.randn_like(h)
    interface(h, y).backward(delta)
    torch.testing.assert_close(h.grad, lam * delta + (1 - lam) * interface.target.copy(h, y), rtol=1e-12, atol=0)
    assert all(p.grad is not None for p in interface.gradient_model.parameters())


def test_a_critic_may_have_a_target_copy():
    interface = Interface(Critic(nn.Linear(4, 3)), target_every=2).double()
    h, y = message()
    taught(interface)
    first = sent(interface, h, y) / interface.unit
    for _ in range(2):
        assert torch.allclose(sent(interface, h, y) / interface.unit, first, rtol=1e-12)  # M is not run
    taught(interface)
    assert not torch.allclose(sent(interface, h, y) / interface.unit, first, rtol=1e-3)


@pytest.mark.parametrize("way", ["state_dict", "deepcopy"])
def test_its_state_is_saved_with_the_interface(way):
    interface, other = (Interface(model(), target_every=3).double() for _ in range(2))
    for _ in range(4):
        taught(interface)
    if way == "deepcopy":
        other = copy.deepcopy(interface)
    else:
        other.load_state_dict(interface.state_dict())
    h, y = message()
    for _ in range(3):  # the copy is refreshed at the same gradient
        assert torch.equal(sent(other, h, y), sent(interface, h, y))
        for each in (interface, other):
            torch.manual_seed(2)
            taught(each)


def test_an_empty_batch_does_not_count_for_the_copy():
    interface = Interface(model(), target_every=1).double()
    before = copy.deepcopy(interface.target.state_dict())
    interface.receive(torch.randn(0, 4, dtype=F64), torch.arange(0)).backward(torch.zeros(0, 4, dtype=F64))
    assert interface.target.gradients == before["gradients"] == 0


def test_refused():
    with pytest.raises(TypeError, match="only a module has a target copy, not function"):
        Interface(lambda h, context: h, target_every=3)
    with pytest.raises(ValueError, match="target_every is -1"):
        Interface(model(), target_every=-1)
