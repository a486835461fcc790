"""What may be sent, and when M's answer to it is used twice."""

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from synthgrad import Interface
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
def test_wrong_answer_is_refused_with_both_shapes(verb):
    h = torch.randn(3, 4, requires_grad=True)
    interface = Interface(lambda h, context: h[:, :2])
    with pytest.raises(ValueError, match=r"\(3, 2\) .* \(3, 4\)"):
        getattr(interface, verb)(*([h, h] if verb == "fit" else [h]))
