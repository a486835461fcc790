"""The models against slow twins, their zero start, and their errors."""

import numpy as np
import pytest
import torch
from torch import nn

from synthgrad.models import MLP, Conv, ConvGlobal, Linear
from tests import reference

DTYPES = [torch.float32, torch.float64, torch.bfloat16]
ALL = {
    "Linear": (lambda **kw: Linear(12, **kw), (6, 12)),
    "MLP": (lambda **kw: MLP(12, hidden=5, **kw), (6, 12)),
    "MLP, deep, batch norm": (lambda **kw: MLP(12, hidden=5, depth=2, batch_norm=True, **kw), (6, 12)),
    "MLP, flattening": (lambda **kw: MLP(12, hidden=5, **kw), (6, 2, 3, 2)),
    "Conv": (lambda **kw: Conv(3, kernel=3, **kw), (6, 3, 2, 2)),
    "Conv, linear": (lambda **kw: Conv(3, depth=0, kernel=3, **kw), (6, 3, 2, 2)),
    "Conv, deep, batch norm": (
        lambda **kw: Conv(3, hidden=5, depth=2, kernel=3, batch_norm=True, **kw),
        (6, 3, 2, 2),
    ),
}
every = pytest.mark.parametrize(("make", "shape"), ALL.values(), ids=ALL.keys())


def warm(model):
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model.double()


@every
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("context", [0, 4])
def test_starts_at_exactly_zero(make, shape, dtype, context):
    model = make(context=context).to(dtype)
    labels = torch.arange(6) % 4 if context else None
    assert all((p == 0).all() for p in model.layers[-1].parameters())
    answer = model(torch.randn(shape, dtype=dtype), labels)
    assert answer.shape == shape
    assert answer.dtype == dtype
    assert (answer == 0).all()


@every
def test_only_the_last_layer_starts_at_zero(make, shape):
    model = make(context=4)
    linear = len(model.layers) == 1
    zero = [name for name, p in model.named_parameters() if (p == 0).all() and "norms" not in name]
    assert zero == [
        name
        for name, _ in model.named_parameters()
        if linear or name.startswith(f"layers.{len(model.layers) - 1}.")
    ]


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("context", ["none", "labels", "rows"])
@pytest.mark.parametrize("shape", [(6, 8), (6, 2, 4), (0, 2, 4)])
@pytest.mark.parametrize("out", [None, 3, (3, 2)])
def test_mlp_is_a_perceptron_of_both_joined(depth, context, shape, out):
    model = warm(MLP(8, hidden=5, depth=depth, context=0 if context == "none" else 4, out=out))
    h, labels = torch.randn(shape, dtype=torch.float64), torch.arange(shape[0]) % 4
    c = {"none": None, "labels": labels, "rows": torch.randn(shape[0], 4, dtype=torch.float64)}[context]
    rows = reference.one_hot(labels.numpy(), 4) if context == "labels" else None if c is None else c.numpy()
    layers = [[p.detach().numpy() for p in layer.parameters()] for layer in model.layers]
    if model.of_context is not None:
        layers[0][0] = np.concatenate([layers[0][0], model.of_context.weight.detach().numpy()], axis=1)
    expected = reference.mlp(h.numpy(), rows, layers)
    answer = model(h, c).detach().numpy()
    assert answer.shape == (shape[0], *{None: shape[1:], 3: (3,), (3, 2): (3, 2)}[out])
    np.testing.assert_allclose(answer.reshape(shape[0], expected.shape[1]), expected, atol=1e-12)


def test_linear_is_the_mlp_without_hidden_layers():
    model = warm(Linear(4, context=3))
    h, y = torch.randn(5, 4, dtype=torch.float64), torch.arange(5) % 3
    weight, bias = model.layers[0].parameters()
    assert torch.allclose(model(h, y), h @ weight.T + bias + model.of_context.weight.T[y])


@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("context", ["none", "labels", "rows"])
@pytest.mark.parametrize("batch", [0, 2])
def test_conv_is_pixel_by_pixel(depth, context, batch):
    model = warm(Conv(3, hidden=2, depth=depth, kernel=3, context=0 if context == "none" else 4))
    h, labels = torch.randn(batch, 3, 4, 5, dtype=torch.float64), torch.arange(batch) + 1
    c = {"none": None, "labels": labels, "rows": torch.randn(batch, 4, dtype=torch.float64)}[context]
    rows = reference.one_hot(labels.numpy(), 4) if context == "labels" else None if c is None else c.numpy()
    layers = [tuple(p.detach().numpy() for p in layer.parameters()) for layer in model.layers]
    np.testing.assert_allclose(model(h, c).detach().numpy(), reference.conv(h.numpy(), rows, layers), atol=1e-12)


@pytest.mark.parametrize("context", [None, 4])
@pytest.mark.parametrize(("batch", "sides", "pooled"), [(5, (4, 6), 2), (0, (4, 6), 2), (5, (3, 5), 8)])
def test_convglobal_is_a_conv_and_a_perceptron_of_the_pooled_map(context, batch, sides, pooled):
    model = ConvGlobal((3, *sides), 2, 7, context=context or 0, kernel=3, pooled=pooled)
    h, y = torch.randn(batch, 3, *sides, dtype=torch.float64), torch.arange(batch) % 4 if context else None
    assert (model.double()(h, y) == 0).all()
    layers = [[p.detach().numpy() for p in layer.parameters()] for layer in warm(model).near.layers]
    rows = reference.one_hot(y.numpy(), 4) if context else None
    near = reference.conv(h.numpy(), rows, layers)
    blocks = [side // pooled if side > pooled else 1 for side in sides]
    small = h.numpy().reshape(batch, 3, sides[0] // blocks[0], blocks[0], sides[1] // blocks[1], blocks[1])
    layers = [[p.detach().numpy() for p in layer.parameters()] for layer in model.across.layers]
    if context:
        layers[0][0] = np.concatenate([layers[0][0], model.across.of_context.weight.detach().numpy()], axis=1)
    across = reference.mlp(small.mean((3, 5)), rows, layers).reshape(h.shape)
    np.testing.assert_allclose(model(h, y).detach().numpy(), near + across, atol=1e-12)


def test_any_memory_layout():
    h = torch.randn(6, 4, 2).transpose(1, 2)
    model = warm(MLP(8)).float()
    assert torch.allclose(model(h), model(h.contiguous()))


def test_a_context_is_ignored_by_a_model_without_one():
    model, h = warm(Linear(4)), torch.randn(5, 4, dtype=torch.float64)
    assert torch.equal(model(h, torch.arange(5)), model(h))


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8])
def test_labels_of_any_integer_type(dtype):
    model, h, labels = warm(Linear(4, context=2)), torch.randn(2, 4, dtype=torch.float64), torch.tensor([0, 1])
    assert torch.equal(model(h, labels.to(dtype)), model(h, labels))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("model", "shape", "said"),
    [
        (Linear(4), (5, 3), r"\(5, 3\), Linear wants \(batch, 4\)"),
        (MLP(4), (5, 2, 3), r"\(5, 2, 3\), MLP wants \(batch, 4\)"),
        (MLP(4), (4,), r"\(4,\), MLP wants \(batch, 4\)"),
        (Conv(3), (5, 4, 8, 8), r"\(5, 4, 8, 8\), Conv wants \(batch, 3, height, width\)"),
        (Conv(3), (3, 8, 8), r"\(3, 8, 8\), Conv wants \(batch, 3, height, width\)"),
    ],
)
def test_wrong_messages(model, shape, said):
    with pytest.raises(ValueError, match=said):
        model(torch.randn(shape))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("model", "shape"), [(Linear(4, context=3), (5, 4)), (Conv(2, context=3), (5, 2, 4, 4))])
@pytest.mark.parametrize(
    ("context", "said"),
    [
        (None, "a context of 3 .* got none"),
        (torch.zeros(5), r"\(5,\), not \(5,\) labels or \(5, 3\)"),
        (torch.zeros(5, 2), r"\(5, 2\), not \(5,\) labels or \(5, 3\)"),
        (torch.zeros(4, dtype=torch.long), r"\(4,\), not \(5,\) labels or \(5, 3\)"),
    ],
)
def test_wrong_contexts(model, shape, context, said):
    with pytest.raises(ValueError, match=said):
        model(torch.randn(shape), context)


def test_even_kernels_are_refused():
    with pytest.raises(ValueError, match="kernel is 4"):
        Conv(3, kernel=4)


@pytest.mark.parametrize("make", [lambda: MLP(4, context=3), lambda: Conv(2, context=3)])
def test_no_label_is_a_row_of_zeros(make):
    model = make()
    for p in model.parameters():
        nn.init.normal_(p)
    h = torch.randn(5, 4) if isinstance(model, MLP) else torch.randn(5, 2, 3, 3)
    y = torch.tensor([0, -100, 2, -100, 1])
    numbers = torch.nn.functional.one_hot(y.clamp(min=0), 3) * (y >= 0)[:, None]
    torch.testing.assert_close(model(h, y), model(h, numbers.float()))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("labels", [[0, 3], [-1, 0], [0, -99]])
def test_labels_out_of_range_are_refused(labels):
    with pytest.raises(ValueError, match="this model knows 0 to 2, and -100 for none"):
        MLP(4, context=3)(torch.randn(2, 4), torch.tensor(labels))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("context", [[0, 1], (0, 1), "y"])
def test_contexts_that_are_no_tensor_are_refused(context):
    with pytest.raises(TypeError, match="the context is a tensor, not"):
        MLP(4, context=3)(torch.randn(2, 4), context)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("settings", [{"hidden": 0}, {"depth": -1}, {"hidden": 2.5}, {"context": -1}])
def test_sizes_out_of_range_are_refused(settings):
    (name, value), *_ = settings.items()
    with pytest.raises(ValueError, match=f"{name} is {value}; it must be a whole number"):
        MLP(4, **settings)
