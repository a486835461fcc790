"""The shapes of networks and of the models on their edges; number formats."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from synthgrad import Critic, Interface
from synthgrad_lab.feedforward import precision
from synthgrad_lab.feedforward.methods.base import criterion
from synthgrad_lab.feedforward.networks import (
    CLASSES,
    IMAGES,
    cnn,
    fcn,
    gradient_model,
    head,
    input_model,
    message_shape,
    network,
)
from synthgrad_lab.feedforward.networks import sides as sides_of
from synthgrad_lab.feedforward.precision import Autocast, bf16_is_fast, prepare
from synthgrad_lab.feedforward.recipes import RECIPES
from synthgrad_lab.running.settings import vary


def small(recipe, method="cdni", **changes):
    tiny = {"width": 4, "model.hidden": 3, "model.input_hidden": 3, "run.precision": "fp32"}
    return vary(RECIPES[recipe](method), {**tiny, **changes})


def images(s, batch=5):
    channels, side = IMAGES[s.data]
    return torch.rand(batch, channels, side, side)


def messages(s):
    """Every hidden layer's message, and the output."""
    h = images(s)
    return [h := part(h) for part in network(s)]


# --- shapes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("side", "layers", "sides"),
    [(28, 3, [14, 7]), (28, 4, [14, 7, 4]), (32, 3, [16, 8]), (32, 4, [16, 8, 4]), (7, 4, [4, 2, 1]), (1, 2, [1])],
)
def test_a_convolutional_layer_halves_the_side(side, layers, sides):
    parts = cnn(layers, width=6, channels=3, side=side)
    h = torch.rand(2, 3, side, side)
    shapes = [tuple((h := part(h)).shape) for part in parts]
    assert shapes == [*((2, 6, n, n) for n in sides), (2, CLASSES)]
    assert sides_of(side, layers) == sides


def test_the_papers_layers():
    kinds = [[type(m).__name__ for m in part] for part in cnn(4, 6)[:-1]]
    assert kinds[0] == ["Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d"]
    assert kinds[1:] == 2 * [["Conv2d", "BatchNorm2d", "ReLU", "AvgPool2d"]]
    assert [[type(m).__name__ for m in part] for part in fcn(3, 6)[:-1]] == [
        ["Flatten", "Linear", "BatchNorm1d", "ReLU"],
        ["Linear", "BatchNorm1d", "ReLU"],
    ]


@pytest.mark.parametrize("make", [fcn, cnn])
def test_a_network_needs_two_layers(make):
    with pytest.raises(ValueError, match=r"layers=1: .* at least 2"):
        make(1, 8)


@pytest.mark.parametrize("layers", [2, 3, 4, 6])
@pytest.mark.parametrize("recipe", RECIPES)
def test_gradient_models_heads_and_input_models_fit_every_message(recipe, layers):
    s = small(recipe, layers=layers)
    *hidden, out = messages(s)
    assert out.shape == (5, CLASSES)
    y = torch.arange(5)
    for k, h in enumerate(hidden):
        assert h.shape[1:] == message_shape(s, k)
        assert input_model(s, k)(images(s)).shape == h.shape
        for depth in (0, 1, 2, 3):
            deep = vary(s, {"model.depth": depth})
            assert gradient_model(deep, k)(h, y).shape == h.shape
            assert gradient_model(replace(deep, method="dni"), k)(h, None).shape == h.shape
            classifier = head(deep, k)
            assert classifier(h).shape == (5, CLASSES)
            above = layers - 2 - k
            assert sum(isinstance(m, nn.Linear | nn.Conv2d) for m in classifier.modules()) <= 1 + min(depth, above)


# --- number formats ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [3, 4])
@pytest.mark.parametrize("recipe", RECIPES)
def test_bfloat16_and_memory_order_change_little(recipe, layers):
    plain = small(recipe, layers=layers, width=8)
    x, y = images(plain, 16), torch.arange(16) % CLASSES
    found = []
    for number_format in (None, "fp32", "bf16"):
        torch.manual_seed(0)
        parts = network(plain)
        if number_format:
            parts = [prepare(part, vary(plain, {"run.precision": number_format})) for part in parts]
        h = x
        outs = [h := part(h) for part in parts]
        criterion(outs[-1], y).backward()
        found.append((outs, [p.grad for part in parts for p in part.parameters()]))
        assert all(torch.isfinite(t).all() for each in found[-1] for t in each)
    for (outs, grads), (exact, _), far in zip(found[1:], found[:2], (1e-5, 0.1), strict=True):
        assert all(
            a.shape == b.shape and (a - b).norm() <= far * b.norm() for a, b in zip(outs, exact, strict=True)
        )
        assert [g.shape for g in grads] == [g.shape for g in found[0][1]]
        a, b = (torch.cat([g.flatten() for g in each]) for each in (grads, found[0][1]))
        assert (a - b).norm() <= 3 * far * b.norm()
    assert [outs[0].dtype for outs, _ in found] == [torch.float32, torch.float32, torch.bfloat16]


@pytest.mark.parametrize("method", ["dni", "cdni", "critic"])
@pytest.mark.parametrize("recipe", ["cifar-fcn", "cifar-cnn"])
def test_models_in_bfloat16_learn_from_bfloat16_messages(recipe, method):
    s = small(recipe, method, **{"run.precision": "bf16"})
    h, y = messages(replace(s, method="cdni"))[0].detach().bfloat16(), torch.arange(5)
    model = prepare(head(s, 0) if method == "critic" else gradient_model(s, 0), s)
    interface = Interface(Critic(model) if method == "critic" else model)
    for _ in range(2):
        received = interface.receive(h, y)
        received.backward(torch.randn_like(h) * 1e-3)
    assert received.dtype == h.dtype
    grads = [p.grad for p in interface.parameters() if p.grad is not None]
    assert all(g.isfinite().all() for g in grads)
    assert any((g != 0).any() for g in grads)
    assert 0 < interface.unit < 1


@pytest.mark.parametrize("fast", [True, False])
def test_auto_is_bfloat16_where_the_processor_has_it(monkeypatch, fast):
    monkeypatch.setattr(precision, "bf16_is_fast", lambda device: fast)
    made = {
        p: prepare(nn.Linear(2, 2), small("mnist-fcn", **{"run.precision": p})) for p in ("auto", "fp32", "bf16")
    }
    assert (made["auto"](torch.ones(1, 2)).dtype == torch.bfloat16) == fast
    assert isinstance(made["bf16"], Autocast)
    assert isinstance(made["fp32"], nn.Linear)
    assert made["bf16"](torch.ones(1, 2)).dtype == torch.bfloat16
    assert all(p.dtype == torch.float32 for p in made["bf16"].parameters())


def test_without_torchs_probes_there_is_no_bfloat16(monkeypatch):
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert not bf16_is_fast("cpu")
    assert not bf16_is_fast("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not bf16_is_fast("cuda:1")
