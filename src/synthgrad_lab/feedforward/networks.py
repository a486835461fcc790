"""The paper's networks, as lists of layers, and the models on the edges between layers."""

from __future__ import annotations

import math
from itertools import pairwise

from torch import nn

from synthgrad.models import MLP, Conv, ConvGlobal
from synthgrad_lab.feedforward.settings import Settings

IMAGES = {"mnist": (1, 28), "fashion-mnist": (1, 28), "cifar10": (3, 32)}
"""Channels and side of the images, in pixels."""
CLASSES = 10
POOLED = 4
"""Side of the smallest map that a convolutional head sees; with larger ones it would cost as much as a layer."""


def network(s: Settings) -> list[nn.Module]:
    """The layers of the network.

    References:
        Jaderberg et al. 2017, section 3.1 and supplement.
    """
    channels, side = IMAGES[s.data]
    if s.net == "fcn":
        return fcn(s.layers, s.width, channels * side**2)
    return cnn(s.layers, s.width, channels, side)


def fcn(layers: int, width: int, inputs: int = 784) -> list[nn.Module]:
    """A fully connected net: (linear, batch norm, ReLU) layers and a linear one on top, which counts as a layer."""
    _check_layers(layers)
    sizes = [inputs, *[width] * (layers - 1)]
    hidden = [[nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU()] for a, b in pairwise(sizes)]
    hidden[0].insert(0, nn.Flatten())
    return [*(nn.Sequential(*modules) for modules in hidden), nn.Linear(width, CLASSES)]


def cnn(layers: int, width: int, channels: int = 3, side: int = 32) -> list[nn.Module]:
    """A convolutional net: (5x5 convolution, batch norm, ReLU, pooling) layers and a linear one on top.

    Pooling is over 3x3 pixels and halves the side: the maximum after the first layer, the mean after the others.
    """
    _check_layers(layers)
    parts: list[nn.Module] = []
    for k in range(layers - 1):
        convolution = nn.Conv2d(width if k else channels, width, 5, padding=2)
        pool = nn.AvgPool2d(3, 2, 1) if k else nn.MaxPool2d(3, 2, 1)
        parts.append(nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU(), pool))
    return [*parts, nn.Sequential(nn.Flatten(), nn.Linear(width * sides(side, layers)[-1] ** 2, CLASSES))]


def sides(side: int, layers: int) -> list[int]:
    """The side of each hidden layer's message, in pixels."""
    return [math.ceil(side / 2**k) for k in range(1, layers)]


def message_shape(s: Settings, k: int) -> tuple[int, ...]:
    """The shape of one example's message above layer k (from 0)."""
    return (s.width,) if s.net == "fcn" else (s.width, *2 * [sides(IMAGES[s.data][1], s.layers)[k]])


def gradient_model(s: Settings, k: int) -> nn.Module:
    """A regression of the gradient on the message above layer k and, for cDNI, the label."""
    context = CLASSES if s.method == "cdni" else 0
    if s.net == "fcn":
        return MLP(s.width, s.model.hidden, s.model.depth, context, batch_norm=s.model.norm)
    if not s.model.across:
        return Conv(s.width, s.model.hidden, s.model.depth, context, s.model.kernel, s.model.norm)
    m, (channels, height, width) = s.model, message_shape(s, k)
    return ConvGlobal((channels, height, width), m.hidden, m.across, m.depth, context, m.kernel, m.norm)


def head(s: Settings, k: int) -> nn.Module:
    """A small classifier of the message above layer k: a critic differentiates it, a local loss trains through it.

    It mirrors the layers above, up to ``model.depth`` hidden ones, on a smaller map. On the top edge it is linear, as
    the top layer is.
    """
    depth = min(s.model.depth, s.layers - 2 - k)
    shape, size, hidden = message_shape(s, k), s.width, s.model.hidden
    modules: list[nn.Module] = []
    if s.net == "fcn":
        for _ in range(depth):
            modules += [nn.Linear(size, hidden), nn.BatchNorm1d(hidden), nn.ReLU()]
            size = hidden
        return nn.Sequential(*modules, nn.Linear(size, CLASSES))
    side = min(shape[1], POOLED * 2 ** max(depth - 1, 0))
    if side < shape[1]:
        modules.append(nn.AdaptiveAvgPool2d(side))
    for _ in range(depth):
        modules += [nn.Conv2d(size, hidden, 3, padding=1), nn.BatchNorm2d(hidden), nn.ReLU()]
        size = hidden
        if side > POOLED:
            side = max(POOLED, side // 2)
            modules.append(nn.AdaptiveAvgPool2d(side))
    return nn.Sequential(*modules, nn.Flatten(), nn.Linear(size * side**2, CLASSES))


def input_model(s: Settings, k: int) -> nn.Module:
    """A model that predicts the message above layer k from the images alone."""
    channels, side = IMAGES[s.data]
    if s.net == "fcn":
        return MLP(channels * side**2, s.model.input_hidden, out=s.width, batch_norm=True)
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(message_shape(s, k)[1]),
        nn.Conv2d(channels, s.model.input_hidden, 5, padding=2),
        nn.BatchNorm2d(s.model.input_hidden),
        nn.ReLU(),
        nn.Conv2d(s.model.input_hidden, s.width, 3, padding=1),
    )


def _check_layers(layers: int) -> None:
    if layers < 2:
        raise ValueError(f"layers={layers}: a network needs at least 2 layers, or there is no edge to decouple")
