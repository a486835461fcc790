"""The paper's networks, as lists of parts: a chain has an edge wherever one ends."""

from __future__ import annotations

from itertools import pairwise

from torch import nn


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
    if layers < 2:
        raise ValueError(f"layers={layers}: a chain with an edge in it has at least 2 layers")
    sizes = [inputs, *[width] * (layers - 1)]
    hidden = [[nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU()] for a, b in pairwise(sizes)]
    hidden[0].insert(0, nn.Flatten())
    return [*(nn.Sequential(*modules) for modules in hidden), nn.Linear(width, classes)]
