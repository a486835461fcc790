"""Checks of messages, and when M's prediction is used twice."""

import copy
import pickle
import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from synthgrad import Critic, Interface
from synthgrad.models import MLP, Linear

shapes = st.lists(st.integers(1, 3), min_size=1, max_size=4).flatmap(
    lambda features: st.integers(0, 3).map(lambda batch: (batch, *features))
)
dtypes = st.sampled_from([torch.float32, torch.float64, torch.bfloat16])


@given(shapes, dtypes, st.sampled_from([None, torch.float32]), st.sampled_from(["mean", "sum"]))
def test_any_shape_and_precision(shape, dtype, model_dtype, reduction):
    interface = Interface(MLP(int(np.prod(shape[1:])), hidden=3).to(model_dtype or dtype), lam=0.5)
    h = torch.randn(shape, dtype=dtype, requires_grad=True)
    sent = torch.randn(shape, dtype=dtype, requires_grad=True)
    for out in (interface(h), interface.receive(h)):
        assert torch.equal(out, h)
        assert out.dtype == dtype
        getattr(torch, reduction)(out.square()).backward()
    interface.send(sent).backward()
    interface.fit(h, h.detach()).backward()
    assert h.grad.dtype == sent.grad.dtype == dtype
    assert (sent.grad == 0).all()
    if reduction == "sum" or shape[0]:  # a mean over nothing is NaN before we see it
        for tensor in (h.grad, interface.unit, *(p.grad for p in interface.parameters())):
            assert tensor.isfinite().all()
    assert interface.skipped == 0


class Counting(Linear):
    runs = 0

    def forward(self, h, context=None):
        self.runs += 1
        return super().forward(h, context)


def change_message(h, model):
    h.detach().mul_(2.0)


def step_model(h, model):
    torch.optim.SGD(model.parameters(), lr=0.1).step()


@pytest.mark.parametrize("between", [None, change_message, step_model, "context"])
@pytest.mark.parametrize("handed_on", [False, True])
def test_model_runs_once_if_its_answer_is_handed_on_and_still_holds(between, handed_on):
    model = Counting(4, context=3)
    interface, h, y = Interface(model), torch.randn(5, 4, requires_grad=True), torch.arange(5) % 3
    interface.receive(h.detach(), y).sum().backward()  # gives M a gradient to step with
    message = h * 1.0
    model.runs = 0
    answer = interface.predict(message, y) if handed_on else None
    interface.send(message, y, answer=answer)
    if callable(between):
        between(message, model)
    elif between == "context":
        y.add_(0)
    interface.receive(message, y, answer=answer).square().sum().backward()
    assert model.runs == (1 if handed_on and between is None else 2)


@pytest.mark.parametrize("sent", ["send", "send without grad"])
@pytest.mark.parametrize("receivers", [1, 2])
def test_receive_teaches_what_fresh_predictions_would(equal, sent, receivers):
    h, grads = torch.randn(5, 4, requires_grad=True), []
    for first in (sent, "nothing"):
        interface = Interface(Linear(4), unit=1.0)
        if first != "nothing":
            with torch.set_grad_enabled(first == "send"):
                interface.send(h)
        for _ in range(receivers):
            interface.receive(h).square().sum().backward()
        grads.append([p.grad for p in interface.parameters()])
    assert equal(*grads)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda i: pickle.loads(pickle.dumps(i))])
def test_copies_after_send(duplicate, equal):
    interface, h = Interface(Linear(4)), torch.randn(5, 4, requires_grad=True)
    interface.send(h * 1.0)
    twin = duplicate(interface)
    for each in (interface, twin):
        each.receive(h).square().sum().backward()
    assert equal([p.grad for p in twin.parameters()], [p.grad for p in interface.parameters()])


VERBS = ["send", "receive", "__call__", "fit", "synthetic_gradient"]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("message", "said"),
    [
        (torch.zeros(3, 4, dtype=torch.int32), r"not torch.int32 of shape \(3, 4\)"),
        (torch.tensor(1.0), r"batch dimension, not torch.float32 of shape \(\)"),
        ((torch.zeros(3, 4), torch.zeros(3, 4)), "one tensor, not tuple"),
    ],
)
def test_refused_messages(verb, message, said):
    if isinstance(message, torch.Tensor) and message.is_floating_point():
        message = message.requires_grad_()
    arguments = (message, message) if verb == "fit" else (message,)
    with pytest.raises(TypeError, match=said):
        getattr(Interface(Linear(4)), verb)(*arguments)


@pytest.mark.parametrize("verb", VERBS)
def test_a_prediction_of_another_shape_is_refused_with_both_shapes(verb):
    h = torch.randn(3, 4, requires_grad=True)
    interface = Interface(lambda h, context: h[:, :2])
    with pytest.raises(ValueError, match=r"\(3, 2\) .* \(3, 4\)"):
        getattr(interface, verb)(*([h, h] if verb == "fit" else [h]))


# --- nothing that M has become in between is missed ---------------------------------------------------------


class Gain(Linear):
    """An M with a buffer, and an attribute that is not in its state_dict."""

    def __init__(self):
        super().__init__(4)
        self.register_buffer("gain", torch.tensor(1.0))
        self.factor = 1.0

    def forward(self, h, context=None):
        return super().forward(h) * self.gain * self.factor * (1.0 if context is None else context["gain"])


CHANGES = {
    "optimizer": step_model,
    "data": lambda h, m: [p.data.add_(1.0) for p in m.parameters()],
    "new data": lambda h, m: [setattr(p, "data", p.data + 1) for p in m.parameters()],
    "assigned": lambda h, m: m.load_state_dict({k: v + 1 for k, v in m.state_dict().items()}, assign=True),
    "buffer": lambda h, m: m.gain.fill_(3.0),
    "attribute": lambda h, m: setattr(m, "factor", 3.0),
    "context": lambda h, m: CONTEXT["gain"].fill_(3.0),
    "thawed": lambda h, m: m.requires_grad_(True),
}
CONTEXT = {"gain": torch.tensor(1.0)}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize("wrapped", [False, True], ids=["module", "lambda"])
def test_a_receiver_asks_m_as_it_is_now(change, wrapped):
    model = Gain()
    CONTEXT["gain"].fill_(1.0)
    for p in model.parameters():
        nn.init.normal_(p)
        p.grad = torch.ones_like(p)
    model.requires_grad_(change is not CHANGES["thawed"])
    interface = Interface((lambda h, c: model(h, c)) if wrapped else model, unit=1.0)
    h = torch.randn(5, 4, requires_grad=True) * 1.0
    interface.send(h, CONTEXT)
    change(h, model)
    model.zero_grad()
    received, used = interface.receive_with_prediction(h, CONTEXT)
    assert torch.equal(used, model(h.detach(), CONTEXT).detach())
    received.square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_sending_alone_keeps_nothing():
    model = MLP(4, hidden=8)
    interface, h = Interface(model), torch.randn(5, 4, requires_grad=True) * 1.0
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.shape) or t, lambda t: t):
        interface.send(h)
    assert (5, 8) not in saved  # M's hidden layer


def test_threads_that_share_an_interface_get_their_own_answers():
    interface, errors = Interface(Linear(4), unit=1.0), []
    nn.init.normal_(interface.gradient_model.layers[0].weight)

    def work(seed):
        g = torch.Generator().manual_seed(seed)
        for _ in range(100):
            h = torch.randn(5, 4, generator=g, requires_grad=True)
            interface.send(h * 1.0).backward()
            _, used = interface.receive_with_prediction(h)
            if not torch.equal(used, interface.gradient_model(h.detach()).detach()):
                errors.append(seed)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


@pytest.mark.parametrize("verb", ["send", "receive", "__call__", "fit", "synthetic_gradient"])
@pytest.mark.parametrize("critic", [False, True])
def test_tensors_of_inference_mode_are_contexts_and_messages(verb, critic):
    interface = Interface(Critic(nn.Linear(4, 3)) if critic else MLP(4, context=3))
    with torch.inference_mode():
        y, h = torch.arange(8) % 3, torch.randn(8, 4)
        assert torch.equal(interface(h, y), h)
        interface.synthetic_gradient(h, y)
    message = torch.randn(8, 4, requires_grad=True) if verb in ("send", "__call__") else h
    found = getattr(interface, verb)(*((message, torch.randn(8, 4)) if verb == "fit" else (message,)), context=y)
    if found.requires_grad:
        found.sum().backward()


def test_without_gradients_a_message_is_received_as_it_is():
    interface, h = Interface(Linear(4)), torch.randn(3, 4)
    with torch.no_grad():
        received = interface.receive(h)
    assert not received.requires_grad
    nn.Linear(4, 2)(received).sum().backward()
    assert received.grad is None


@pytest.mark.parametrize("transform", ["grad", "vmap"])
def test_transforms_that_run_no_backward_pass_are_refused(transform):
    interface, h = Interface(Linear(4)), torch.randn(3, 4)
    f = {"grad": torch.func.grad, "vmap": torch.func.vmap}[transform]
    for verb in ("__call__", "receive", "send"):
        with pytest.raises(NotImplementedError, match=r"loss.backward\(\) with torch.func.functional_call"):
            f(lambda h, verb=verb: getattr(interface, verb)(h[None] if h.dim() == 1 else h).sum())(h)
    interface.eval()
    f(lambda h: interface(h).sum())(h)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("value", [None, 3.0, "M"])
def test_a_model_that_cannot_be_called_is_refused(value):
    with pytest.raises(TypeError, match=f"callable as M.h, context.; {type(value).__name__} is not"):
        Interface(value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"scale": float("nan")}, "scale is nan"), ({"scale": -1.0}, "scale is -1"), ({"target_every": 2.5}, "2.5")],
)
@pytest.mark.usefixtures("unchecked")
def test_settings_out_of_range(settings, said):
    with pytest.raises(ValueError, match=said):
        Interface(Linear(4), **settings)
