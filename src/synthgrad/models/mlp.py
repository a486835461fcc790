"""A multilayer perceptron, the usual gradient model, and its linear form."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from synthgrad.models.context import Context, context_of
from synthgrad.models.layers import check_sizes, start_at_zero


class MLP(nn.Module):
    """A multilayer perceptron of the message and the context.

    The last layer starts at zero, weight **and** bias, so that the first synthetic gradient is zero. With ``out``
    it can be an input model, too: ``I(source)``.

    Args:
        features: elements of one example's message; all dimensions after the batch are flattened.
        hidden: units of each hidden layer. Narrower than ``features``, it is a bottleneck and costs little.
        depth: number of hidden layers; 0 is linear.
        context: number of classes, or of context features; 0 is none.
        out: shape of one example's output; the default is the message's.
        batch_norm: batch normalisation before each ReLU, as in the paper's M.

    Example:
        >>> M = MLP(256, hidden=64, context=10)
        >>> M(torch.randn(32, 256), torch.randint(10, (32,))).shape
        torch.Size([32, 256])

    References:
        Jaderberg et al. 2017, section 3.1 and supplement: M with 0, 1 or 2 hidden layers; one-hot label (cDNI).
    """

    def __init__(
        self,
        features: int,
        hidden: int = 64,
        depth: int = 1,
        context: int = 0,
        out: int | tuple[int, ...] | None = None,
        batch_norm: bool = False,
    ):
        super().__init__()
        check_sizes(1, features=features, hidden=hidden)
        check_sizes(0, depth=depth, context=context)
        self.features, self.context = features, context
        self.out = (out,) if isinstance(out, int) else out
        size = features if self.out is None else math.prod(self.out)
        widths = [features, *[hidden] * depth, size]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        # The linear map of [h, c] as a sum of two, without the copy that concatenation would cost.
        self.of_context = nn.Linear(context, widths[1], bias=False) if context else None
        self.norms = nn.ModuleList(nn.BatchNorm1d(hidden) if batch_norm else nn.Identity() for _ in range(depth))
        start_at_zero(self.layers[-1], *([self.of_context] if depth == 0 else []))

    def forward(
        self, h: Float[Tensor, "batch *features"], context: Context | None = None
    ) -> Float[Tensor, "batch *out"]:
        """The prediction, in the shape of h (or ``out``).

        Raises:
            ValueError: if h's elements per example are not ``features``, or the context doesn't fit.
        """
        if h.dim() < 2 or math.prod(h.shape[1:]) != self.features:
            raise ValueError(
                f"the message has shape {tuple(h.shape)}, {type(self).__name__} wants (batch, {self.features}): "
                f"{self.features} elements per example"
            )
        x = self._first(h, context)
        if self.norms:
            x = self.layers[-1](self._hidden(x))
        return x.view(len(h), *(h.shape[1:] if self.out is None else self.out))

    def _first(self, h: Tensor, context: Context | None) -> Tensor:
        x = self.layers[0](h.flatten(1))
        if (c := context_of(context, self.context, h)) is not None and self.of_context is not None:
            x = x.addmm(c, self.of_context.weight.t())
        return x

    def _hidden(self, x: Tensor) -> Tensor:
        """The last layer's input, from the first layer's output."""
        for norm, layer in zip(self.norms, self.layers[1:-1], strict=False):
            x = layer(F.relu(norm(x)))
        return F.relu(self.norms[-1](x))

    def last(self) -> list[Any]:
        """The last layer's parameters: weight, the context's weight if there is one, bias."""
        layer: Any = self.layers[-1]
        context = [self.of_context.weight] if self.of_context is not None and not self.norms else []
        return [layer.weight, *context, layer.bias]

    def features_of(self, h: Float[Tensor, "batch *features"], context: Context | None = None) -> Tensor:
        """The factors of the last layer's parameters, concatenated in the order of ``last``; 1 for the bias."""
        if self.norms:
            found = [self._hidden(self._first(h, context))]
        else:
            c = context_of(context, self.context, h)
            found = [h.flatten(1)] if c is None else [h.flatten(1), c]
        return torch.cat([*found, h.new_ones(len(h), 1)], dim=1)


class Linear(MLP):
    """A linear model: the paper's M for cDNI on fully connected nets. Starts at zero.

    Args:
        features: elements of one example's message.
        context: number of classes, or of context features; 0 is none.
    """

    def __init__(self, features: int, context: int = 0):
        super().__init__(features, depth=0, context=context)
