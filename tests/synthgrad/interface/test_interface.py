"""The three verbs and fit against the paper's equations; for units see test_units.py. Errors: at the end."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from synthgrad import Interface, fused
from synthgrad.models import Linear
from tests import reference

F64 = torch.float64


def affine(layer):
    return layer.weight.detach().numpy(), layer.bias.detach().numpy()


def gradient(layer):
    return layer.weight.grad.numpy(), layer.bias.grad.numpy()


def assert_affine(layers, expected, tolerance=1e-12):
    for layer, (weight, bias) in zip(layers, expected, strict=True):
        np.testing.assert_allclose(gradient(layer)[0], weight, atol=tolerance)
        np.testing.assert_allclose(gradient(layer)[1], bias, atol=tolerance)


@pytest.fixture
def twins():
    """Three tanh layers with linear models between them, as modules; x and target."""
    layers = [nn.Linear(a, b).double() for a, b in [(3, 4), (4, 5), (5, 2)]]
    models = [nn.Linear(width, width).double() for width in (4, 5)]
    return layers, models, torch.randn(6, 3, dtype=F64), torch.randn(6, 2, dtype=F64)


def without_context(model):
    return lambda h, context: model(h)


def arguments(layers, models, x, target):
    return [affine(n) for n in layers], [affine(m) for m in models], x.numpy(), target.numpy()


def squared(out, target):
    return (out - target).square().sum() / (2 * len(out))


# --- the equations -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 0.1])
@pytest.mark.parametrize(
    "lams", [(0.0, 0.0), (0.25, 0.25), (0.5, 0.5), (0.9, 0.9), (1.0, 1.0), (0.2, 0.7), (1.0, 0.0)]
)
def test_fused_is_bp_lambda(twins, lams, scale):
    layers, models, x, target = twins
    settings = {"scale": scale, "unit": 0.5}
    interfaces = [
        Interface(without_context(model), lam=lam, **settings).double()
        for model, lam in zip(models, lams, strict=True)
    ]
    parts = [nn.Sequential(layer, nn.Tanh()) for layer in layers]
    squared(fused(parts, interfaces, x), target).backward()
    of_layers, of_models = reference.bp_lambda(*arguments(*twins), lams, **settings)
    assert_affine(layers, of_layers)
    assert_affine(models, of_models)


def test_send_and_receive_are_figure_2(twins):
    layers, models, h, target = twins
    interfaces = [Interface(without_context(m), unit=1.0) for m in models]
    for k, layer in enumerate(layers):
        out = torch.tanh(layer(interfaces[k - 1].receive(h) if k else h))
        (interfaces[k].send(out) if k < 2 else squared(out, target)).backward()
        h = out
    of_layers, of_models = reference.dni(*arguments(*twins))
    assert_affine(layers, of_layers)
    assert_affine(models, of_models)


def test_lam_1_is_backprop_bit_for_bit(chain, equal):
    chain.criterion(fused(chain.parts, chain.interfaces(lam=1.0), chain.x, chain.y)).backward()
    assert equal(chain.take_grads(), chain.backprop())


def test_lam_1_is_backprop_whatever_the_model_says(chain, equal):
    interfaces = [Interface(lambda h, context: h * torch.nan, lam=1.0) for _ in range(3)]
    chain.criterion(fused(chain.parts, interfaces, chain.x)).backward()
    assert equal(chain.take_grads(), chain.backprop())


@pytest.mark.parametrize("lam", [0.0, 0.3, 1.0])
def test_exact_model_is_backprop_fused(chain, equal, lam):
    chain.criterion(fused(chain.parts, chain.exact_interfaces(lam=lam), chain.x)).backward()
    assert equal(chain.take_grads(), chain.backprop(), 1e-10)


def test_fused_is_send_plus_receive_bit_for_bit(chain, equal):
    interfaces = chain.interfaces(scale=0.5)
    models = [p for i in interfaces for p in i.parameters()]
    separate = copy.deepcopy(interfaces)
    chain.criterion(fused(chain.parts, interfaces, chain.x, chain.y)).backward()
    together = chain.take_grads()
    h = chain.x
    for k, part in enumerate(chain.parts):
        h = part(separate[k - 1].receive(h, chain.y) if k else h)
        (separate[k].send(h, chain.y) if k < 3 else chain.criterion(h)).backward()
    assert equal(chain.take_grads(), together)
    assert equal([p.grad for i in separate for p in i.parameters()], [p.grad for p in models])
    assert equal([i.unit for i in separate], [i.unit for i in interfaces])


# --- no leaks ----------------------------------------------------------------------------------------------


def test_nothing_leaks_across_an_edge(chain):
    a, b = chain.parts[0], chain.parts[3]
    interface = chain.interfaces()[0]
    h = a(chain.x)
    interface.send(h, chain.y).backward(inputs=[*a.parameters(), *interface.parameters()])
    assert all(p.grad is not None for p in a.parameters())
    assert all(p.grad is None for p in interface.parameters())
    a.zero_grad(set_to_none=True)
    h = a(chain.x)
    chain.criterion(b(interface.receive(h, chain.y))).backward()
    assert all(p.grad is None for p in a.parameters())
    assert all(p.grad is not None for p in [*b.parameters(), *interface.parameters()])


def test_the_regression_does_not_reach_the_network_below(chain):
    interface = chain.interfaces(scale=0.0)[0]
    chain.criterion(chain.parts[3](interface(chain.parts[0](chain.x), chain.y))).backward()
    assert all((p.grad == 0).all() for p in chain.parts[0].parameters())
    assert any((p.grad != 0).any() for p in interface.parameters())


@pytest.mark.parametrize("verb", ["receive", "__call__"])
def test_later_layers_may_not_write_in_place(verb):
    """As nn.ReLU(inplace=True) behind a cut batch norm would: the message belongs to the sender's graph."""
    message = nn.Linear(4, 4)(torch.randn(3, 4))
    with pytest.raises(RuntimeError, match="modified inplace"):
        getattr(Interface(Linear(4)), verb)(message).relu_()


# --- fit, the input model, eval ----------------------------------------------------------------------------


@pytest.mark.parametrize("unit", [None, 0.5])
def test_fit_is_receive_plus_backward(chain, equal, unit):
    received = chain.interfaces(unit=unit)[0]
    fitted = copy.deepcopy(received)
    for _ in range(3):  # the unit moves
        h, delta = torch.randn(8, 5, dtype=F64), torch.randn(8, 5, dtype=F64)
        received.receive(h, chain.y).backward(delta)
        fitted.fit(h, delta, chain.y).backward()
    assert equal([p.grad for p in fitted.parameters()], [p.grad for p in received.parameters()], 1e-12)
    assert torch.equal(fitted.unit, received.unit)
    assert torch.allclose(fitted.regression_loss, received.regression_loss)


def test_fit_trains_the_input_model():
    interface = Interface(Linear(4), input_model=nn.Linear(3, 4))
    x = torch.randn(64, 3)
    h = x @ torch.randn(3, 4)
    optimizer = torch.optim.SGD(interface.input_model.parameters(), lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        loss = interface.fit(h, source=x)
        loss.backward()
        optimizer.step()
    assert loss < 1e-3
    assert torch.allclose(loss, (interface.synthetic_input(x) - h).square().sum() / 64, atol=1e-3)
    assert all(p.grad is None for p in interface.gradient_model.parameters())


@pytest.mark.parametrize("training", [True, False])
def test_receive_on_a_synthetic_input(training):
    interface = Interface(Linear(4), input_model=nn.Linear(3, 4)).train(training)
    x, part = torch.randn(5, 3), nn.Linear(4, 1)
    h = interface.receive(source=x)
    assert torch.equal(h, interface.input_model(x))
    part(h).sum().backward()
    assert all(p.grad is None for p in interface.input_model.parameters())
    assert all((p.grad is not None) == training for p in interface.gradient_model.parameters())


def test_eval_is_the_identity_and_true_gradients_flow(chain, equal):
    interfaces = [i.eval() for i in chain.interfaces()]
    chain.criterion(fused(chain.parts, interfaces, chain.x, chain.y)).backward()
    assert equal(chain.take_grads(), chain.backprop())
    h = torch.randn(8, 5, dtype=F64, requires_grad=True)
    assert interfaces[0].receive(h, chain.y) is h
    loss = interfaces[0].send(h, chain.y)
    loss.backward()
    assert loss == 0
    assert (h.grad == 0).all()
    assert interfaces[0].send(h.detach().fill_(torch.inf), chain.y) == 0
    assert all(p.grad is None for i in interfaces for p in i.parameters())


# --- errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("lam", 1.5), ("lam", -0.1), ("lam", float("nan"))],
        *[("unit", 0.0), ("unit", -1.0), ("unit", float("inf")), ("unit_factor", 0.0), ("unit_decay", 1.0)],
    ],
)
def test_settings_out_of_range(name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        Interface(Linear(4), **{name: value})


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("answer", [(5, 4), (3, 1), (4,)])
def test_fit_refuses_synthetic_inputs_of_other_shapes(answer):
    """(3, 1) and (4,) would broadcast."""
    interface = Interface(Linear(4), input_model=lambda source: torch.zeros(answer))
    with pytest.raises(ValueError, match=r"\(3, 4\)"):
        interface.fit(torch.randn(3, 4), source=torch.zeros(3, 4))


def test_refused_calls():
    interface, h = Interface(Linear(4)), torch.randn(3, 4)
    with pytest.raises(ValueError, match=r"\(3, 4\) without a graph"):
        interface.send(h)
    with pytest.raises(ValueError, match="exactly one of h"):
        interface.receive()
    with pytest.raises(ValueError, match="exactly one of h"):
        interface.receive(h, source=h)
    with pytest.raises(ValueError, match="no input model"):
        interface.receive(source=h)
    with pytest.raises(ValueError, match="no input model"):
        interface.fit(h, source=h)
    with pytest.raises(ValueError, match=r"delta .+ or source"):
        interface.fit(h)


@pytest.mark.usefixtures("unchecked")
def test_fit_refuses_other_shapes():
    interface, h = Interface(Linear(4)), torch.randn(3, 4)
    with pytest.raises(ValueError, match=r"\(3, 2\), its message \(3, 4\)"):
        interface.fit(h, h[:, :2])
