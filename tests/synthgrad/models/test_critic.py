"""A critic's prediction and its learning, against gradients computed by hand, example by example."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from synthgrad import Critic, Interface, unlocked

F64 = torch.float64


def smooth_head():
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))


def critic(**settings):
    return Critic(smooth_head(), **settings).double()


def messages(batch=7):
    return torch.randn(batch, 5, dtype=F64), torch.arange(batch) % 3


def one_by_one(head, h, y):
    """∂/∂h of each example's loss, an example at a time."""
    rows = [row[None].clone().requires_grad_() for row in h]
    losses = [F.cross_entropy(head(row), label[None]) for row, label in zip(rows, y, strict=True)]
    return torch.cat(torch.autograd.grad(losses, rows)) if rows else torch.zeros_like(h)


def grads(module):
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in module.parameters()]


# --- the answer --------------------------------------------------------------------------------------------


@given(st.integers(1, 6), st.sampled_from(["mean", "sum"]), st.floats(1e-3, 1e5), st.floats(0, 3))
def test_the_answer_is_the_losses_gradient_and_its_unit_the_losses_weight(batch, reduction, scale, anchor):
    m = critic(anchor=anchor, reduction=reduction)
    m.loss_scale = scale
    h, y = messages(batch)
    answer, slow = m(h, y), one_by_one(m.head, h, y)
    torch.testing.assert_close(answer, slow, rtol=1e-10, atol=0)
    np.testing.assert_allclose(m.units.value.item(), scale / (batch if reduction == "mean" else 1), rtol=1e-6)


@pytest.mark.parametrize("loss", ["cross-entropy", "squared"])
def test_any_loss_of_each_example_works(loss):
    squared = lambda out, target: (out - target).square().sum(1)  # noqa: E731
    m = Critic(nn.Linear(5, 3), **({} if loss == "cross-entropy" else {"loss": squared})).double()
    h, y = messages()
    if loss == "squared":
        y = F.one_hot(y, 3).double()
        expected = 2 * (m.head(h) - y) @ m.head.weight
    else:
        expected = (m.head(h).softmax(1) - F.one_hot(y, 3)) @ m.head.weight
    torch.testing.assert_close(m(h, y), expected, rtol=1e-10, atol=1e-12)


def test_without_gradients_it_predicts_and_changes_no_state(equal):
    m = critic()
    h, y = messages()
    answer, before = m(h, y), copy.deepcopy(m.state_dict())
    with torch.no_grad():
        again = m(h, y)
    assert not again.requires_grad
    assert torch.equal(again, answer.detach())
    assert equal(list(m.state_dict().values()), list(before.values()))


@pytest.mark.parametrize("anchor", [0.0, 1.0])
def test_an_empty_batch(anchor):
    m = critic(anchor=anchor)
    h, y = messages(0)
    answer = m(h, y)
    assert answer.shape == (0, 5)
    interface = Interface(m).double()
    interface.receive(h, y).backward(h)
    assert all((g == 0).all() for g in grads(m))


# --- teaching ----------------------------------------------------------------------------------------------


def taught(m, h, y, delta, **settings):
    """An interface around m on which δ has just arrived; the gradients are on m."""
    interface = Interface(m, **settings).double()
    interface.receive(h, y).backward(delta)
    return interface


def test_the_regression_is_a_second_derivative(equal):
    m = critic(anchor=0.0)
    h, y = messages()
    delta = torch.randn_like(h)
    taught(m, h, y, delta)
    leaf = h.clone().requires_grad_()
    losses = F.cross_entropy(m.head(leaf), y, reduction="none")
    (gradient,) = torch.autograd.grad(losses.sum(), leaf, create_graph=True)
    error = gradient - delta * len(h)
    expected = torch.autograd.grad(error.square().sum() / len(h), list(m.parameters()))
    assert equal(grads(m), list(expected), 1e-5)  # the unit, 1/7, is a number of single precision
    assert all((g != 0).any() for g in expected)


@given(st.floats(0.01, 10))
def test_the_anchor_adds_the_tasks_loss_and_nothing_else(anchor):
    anchored = critic(anchor=anchor)
    bare = copy.deepcopy(anchored)
    bare.anchor = 0.0
    h, y = messages()
    for m in (anchored, bare):
        taught(m, h, y, torch.ones_like(h))
    mean = F.cross_entropy(bare.head(h), y)
    expected = [anchor * g for g in torch.autograd.grad(mean, list(bare.head.parameters()))]
    added = [a - b for a, b in zip(grads(anchored.head), grads(bare.head), strict=True)]
    torch.testing.assert_close(added, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("teach", ["receive", "fused", "fit"])
def test_every_way_of_teaching_is_the_same(equal, teach):
    m = critic()
    twin = copy.deepcopy(m)
    h, y = messages()
    delta = torch.randn_like(h)
    taught(m, h, y, delta)
    interface = Interface(twin).double()
    if teach == "fit":
        interface.fit(h, delta, y).backward()
    else:
        (interface(h, y) if teach == "fused" else interface.receive(h, y)).backward(delta)
    assert equal(grads(twin), grads(m), 1e-12)


def test_it_may_run_again_before_the_first_gradient_comes_back():
    """For instance by an interface in a loop."""
    interface = Interface(critic()).double()
    first, second = (interface.receive(*messages()) for _ in range(2))
    (first + second).sum().backward()
    assert all(g.isfinite().all() and (g != 0).any() for g in grads(interface))


def test_the_critics_learning_does_not_reach_the_network_below():
    h, y = messages()
    h.requires_grad_()
    m = critic()
    m(h, y).sum().backward()
    assert h.grad is None
    Interface(m, scale=0.0).double()(h, y).backward(torch.ones_like(h))
    assert (h.grad == 0).all()


def trained(chain, factor, step_parts):
    """The parts and critics after 20 update-unlocked steps on ``factor`` times the mean loss."""
    parts = copy.deepcopy(chain.parts)
    torch.manual_seed(1)
    interfaces = [Interface(Critic(nn.Linear(5, 3), anchor=0.5)).double() for _ in parts[1:]]
    for interface in interfaces:
        interface.gradient_model.loss_scale = factor
    optimizers = [
        step_parts([p for part in parts for p in part.parameters()], factor),
        torch.optim.SGD([p for i in interfaces for p in i.parameters()], lr=0.1),
    ]
    for _ in range(20):
        for _k, loss in unlocked(parts, interfaces, chain.x, lambda out: chain.criterion(out) * factor, chain.y):
            loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    return [p.detach() for module in (*parts, *interfaces) for p in module.parameters()]


@pytest.mark.parametrize(
    "step_parts",
    [
        lambda p, factor: torch.optim.SGD(p, lr=0.5 / factor),
        lambda p, factor: torch.optim.Adam(p, lr=0.003, eps=1e-30),
    ],
    ids=["sgd", "adam"],
)
def test_the_loss_may_be_scaled(chain, equal, step_parts):
    mean, scaled = (trained(chain, factor, step_parts) for factor in (1.0, 1024.0))
    assert equal(scaled, mean, 1e-10)
    assert not equal(mean[:2], chain.parameters()[:2], 1e-4)  # the lowest part did learn


def test_a_critic_of_the_rest_of_the_network_is_backprop(chain):
    """If its head is the network above, M is exact."""
    m = Critic(nn.Sequential(*copy.deepcopy(chain.parts[2:]))).double()
    h = chain.parts[1](chain.parts[0](chain.x)).detach().requires_grad_()
    (true,) = torch.autograd.grad(chain.criterion(chain.run(h, 2)), h)
    synthetic = Interface(m).double().synthetic_gradient(h, chain.y)
    torch.testing.assert_close(synthetic, true, rtol=1e-12, atol=0)


# --- state, formats, errors --------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["state_dict", "deepcopy"])
def test_a_copy_predicts_the_same_and_learns_by_itself(way):
    m, other = critic(), critic()
    h, y = messages()
    if way == "deepcopy":
        other = copy.deepcopy(m)
    else:
        other.load_state_dict(m.state_dict())
    with torch.no_grad():
        assert torch.equal(m(h, y), other(h, y))
        m.head[0].weight.add_(1.0)
        assert not torch.equal(m(h, y), other(h, y))


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("autocast", [False, True])
def test_convolutional_heads(memory, autocast):
    head = nn.Sequential(
        nn.AdaptiveAvgPool2d(4), nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
        nn.Linear(64, 10),
    ).to(memory_format=memory)  # fmt: skip
    interface = Interface(Critic(head))
    h, y = torch.randn(6, 3, 7, 7).to(memory_format=memory), torch.arange(6)
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            received = interface.receive(h, y)
        received.backward(torch.randn_like(h))
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            synthetic = interface.synthetic_gradient(h, y)
    assert synthetic.shape == h.shape
    assert synthetic.isfinite().all()
    assert (synthetic != 0).any()
    assert all(g.isfinite().all() for g in grads(interface))
    assert any((g != 0).any() for g in grads(head))


def test_no_context_is_refused():
    with pytest.raises(ValueError, match="the labels"):
        critic()(messages()[0])


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("reduction", ["mean", "a row each"])
def test_a_loss_that_is_not_one_number_per_example_is_refused(reduction):
    loss = (lambda out, y: F.cross_entropy(out, y)) if reduction == "mean" else (lambda out, y: out)
    with pytest.raises(ValueError, match="one number for each of the 7 examples"):
        critic(loss=loss)(*messages())


@pytest.mark.parametrize("anchor", [-0.1, float("nan"), float("inf")])
def test_anchors_out_of_range(anchor):
    with pytest.raises(ValueError, match=f"anchor is {anchor}"):
        critic(anchor=anchor)


# --- the task's own criterion --------------------------------------------------------------------------------

WEIGHTS = torch.tensor([0.1, 1.0, 5.0], dtype=F64)
CRITERIA = {
    "mean": (F.cross_entropy, None),
    "sum": (lambda o, y: F.cross_entropy(o, y, reduction="sum"), None),
    "weights": (lambda o, y: F.cross_entropy(o, y, weight=WEIGHTS), None),
    "smoothing, / 4": (lambda o, y: F.cross_entropy(o, y, label_smoothing=0.1) / 4, None),
    "most ignored": (F.cross_entropy, lambda y: y.where(torch.arange(len(y)) % 5 == 0, -100)),
    "probabilities": (F.cross_entropy, lambda y: F.one_hot(y, 3).double() * 0.8 + 0.1),
    "squares": (F.mse_loss, lambda y: F.one_hot(y, 3).double()),
}
every_criterion = pytest.mark.parametrize(("criterion", "labels"), CRITERIA.values(), ids=CRITERIA.keys())


@every_criterion
@pytest.mark.parametrize("wrapped", [False, True, "lambda"])
@pytest.mark.parametrize("target", [0, 3])
def test_a_criterion_gives_the_tasks_own_gradient(criterion, labels, wrapped, target):
    m = critic(criterion=criterion)
    h, y = messages(15)
    y = labels(y) if labels else y
    leaf = h.clone().requires_grad_()
    criterion(m.head(leaf), y).backward()

    class Wrapper(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = m

        def forward(self, h, context=None):
            return self.inner(h, context)

    model = {True: Wrapper(), False: m, "lambda": lambda h, c: m(h, c)}[wrapped]
    interface = Interface(model, target_every=0 if wrapped == "lambda" else target)
    torch.testing.assert_close(interface.synthetic_gradient(h, y), leaf.grad, rtol=1e-6, atol=1e-12)
    sender = h.clone().requires_grad_()
    interface.send(sender, y).backward()
    torch.testing.assert_close(sender.grad, leaf.grad, rtol=1e-6, atol=1e-12)
    interface.zero_grad()
    interface.receive(h, y).backward(leaf.grad)  # an exact critic: only the anchor teaches
    m.anchor = 0.0
    interface.zero_grad()
    m.zero_grad()
    interface.receive(h, y).backward(leaf.grad)
    assert all(g.abs().max() < 1e-5 for g in grads(m))


def test_the_default_leaves_out_examples_without_a_label():
    m = critic()
    h, y = messages(12)
    y[::3] = -100
    leaf = h.clone().requires_grad_()
    F.cross_entropy(m.head(leaf), y).backward()
    torch.testing.assert_close(Interface(m).double().synthetic_gradient(h, y), leaf.grad, rtol=1e-6, atol=1e-12)


def test_labels_that_are_all_ignored_teach_nothing():
    m = critic()
    h, _ = messages(6)
    interface = Interface(m)
    interface.receive(h, torch.full((6,), -100)).backward(torch.zeros_like(h))
    assert all(p.grad is None for p in m.parameters())
    assert interface.skipped == 1


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("reduction", ["Mean", "none", "batchmean", None])
def test_unknown_reductions_are_refused(reduction):
    with pytest.raises(ValueError, match="wanted 'mean' or 'sum'"):
        Critic(nn.Linear(4, 3), reduction=reduction)


def test_contradicting_settings_are_refused():
    with pytest.raises(ValueError, match=r"loss .* or criterion .* not both"):
        Critic(nn.Linear(4, 3), lambda o, y: o.sum(1), criterion=F.cross_entropy)
    with pytest.raises(ValueError, match="a critic brings its own"):
        Interface(critic(), unit=5.0)
    with pytest.raises(ValueError, match="wanted a scalar"):
        critic(criterion=lambda o, y: o.sum(1))(*messages())
    with pytest.raises(TypeError, match=r"labels are whole numbers, not torch\.float64"):
        critic()(messages()[0], messages()[1].double())
