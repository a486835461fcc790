"""The paper's networks, as lists of parts (a chain has an edge wherever one ends), and the models beside them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from torch import nn

from synthgrad.models import MLP, Conv, ConvGlobal
from synthgrad_lab.feedforward.settings import Settings

IMAGES = {"mnist": (1, 28), "fashion-mnist": (1, 28), "cifar10": (3, 32)}
"""Channels and side of the images, in pixels."""
CLASSES = 10
POOLED = 4
"""Side of the smallest map that a convolutional head looks at: its arithmetic stays small beside the layer's."""


def network(s: Settings) -> list[nn.Module]:
    """The parts that the settings ask for."""
    channels, side = IMAGES[s.data]
    if s.net == "fcn":
        return fcn(s.layers, s.width, channels * side**2, CLASSES)
    return cnn(s.layers, s.width, channels, side, CLASSES)


def fcn(layers: int, width: int, inputs: int = 784, classes: int = 10) -> list[nn.Module]:
    """A fully connected net: (linear, batch norm, ReLU) layers and a linear one on top.

    Args:
        layers: number of layers, the output layer counted; 4 is inputs-width-width-width-classes.
        width: hidden units.
        inputs: elements of one example.
        classes: outputs.

    Returns:
        One part per layer.

    References:
        Jaderberg et al. 2017, section 3.1 and supplement.
    """
    _at_least_two(layers)
    sizes = [inputs, *[width] * (layers - 1)]
    hidden = [[nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU()] for a, b in pairwise(sizes)]
    hidden[0].insert(0, nn.Flatten())
    return [*(nn.Sequential(*modules) for modules in hidden), nn.Linear(width, classes)]


def cnn(layers: int, width: int, channels: int = 3, side: int = 32, classes: int = 10) -> list[nn.Module]:
    """A convolutional net: (5x5 convolution, batch norm, ReLU, pooling) layers and a linear one on top.

    Pooling is over 3x3 pixels and halves the side: the maximum after the first layer, the mean after the others.

    Args:
        layers: number of layers, the output layer counted.
        width: filters of each convolution.
        channels: of the images.
        side: of the images, in pixels.
        classes: outputs.

    Returns:
        One part per layer.

    References:
        Jaderberg et al. 2017, section 3.1 and supplement.
    """
    _at_least_two(layers)
    parts: list[nn.Module] = []
    for k in range(layers - 1):
        convolution = nn.Conv2d(width if k else channels, width, 5, padding=2)
        pool = nn.AvgPool2d(3, 2, 1) if k else nn.MaxPool2d(3, 2, 1)
        parts.append(nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU(), pool))
    return [*parts, nn.Sequential(nn.Flatten(), nn.Linear(width * sides(side, layers)[-1] ** 2, classes))]


def sides(side: int, layers: int) -> list[int]:
    """The side of each hidden layer's message, in pixels."""
    found = [side]
    for _ in range(layers - 1):
        found.append((found[-1] + 1) // 2)
    return found[1:]


def message(s: Settings, k: int) -> tuple[int, ...]:
    """The shape of one example's message above layer k (from 0)."""
    return (s.width,) if s.net == "fcn" else (s.width, *2 * [sides(IMAGES[s.data][1], s.layers)[k]])


def gradient_model(s: Settings, k: int) -> nn.Module:
    """A regression of the gradient on the message above layer k and, for cDNI, the label."""
    context = CLASSES if s.method == "cdni" else 0
    if s.net == "fcn":
        return MLP(s.width, s.model.hidden, s.model.depth, context, batch_norm=s.model.norm)
    if not s.model.across:
        return Conv(s.width, s.model.hidden, s.model.depth, context, s.model.kernel, s.model.norm)
    shape: Any = message(s, k)
    return ConvGlobal(shape, s.model.hidden, s.model.across, s.model.depth, context, s.model.kernel, s.model.norm)


def head(s: Settings, k: int) -> nn.Module:
    """A small classifier of the message above layer k: what a critic differentiates, and a local loss reads.

    It mirrors the layers above, up to ``model_depth`` hidden ones, on a smaller map: the top edge's is linear, as
    the top layer is.
    """
    depth = min(s.model.depth, s.layers - 2 - k)
    shape, size, hidden = message(s, k), s.width, s.model.hidden
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
    """Predicts the message above layer k from the images alone."""
    channels, side = IMAGES[s.data]
    if s.net == "fcn":
        return MLP(channels * side**2, s.model.input_hidden, out=s.width, batch_norm=True)
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(message(s, k)[1]),
        nn.Conv2d(channels, s.model.input_hidden, 5, padding=2),
        nn.BatchNorm2d(s.model.input_hidden),
        nn.ReLU(),
        nn.Conv2d(s.model.input_hidden, s.width, 3, padding=1),
    )


def _at_least_two(layers: int) -> None:
    if layers < 2:
        raise ValueError(f"layers={layers}: a chain with an edge in it has at least 2 layers")
