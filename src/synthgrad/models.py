"""Models that predict a gradient (or an input): small networks, called as ``M(h, context)``."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor, nn

from synthgrad.numbers import waits_for

NO_LABEL = -100
"""Torch's label for an example without one."""
Context = Integer[Tensor, " batch"] | Float[Tensor, "batch context"]
"""Labels 0 … context-1, or a row of numbers per example."""


class MLP(nn.Module):
    """A multilayer perceptron of the message and, beside it, the context.

    The last layer starts at zero, weight **and** bias, so that the first synthetic gradient is zero. With
    ``out`` it serves as an input model too: ``I(source)``.

    Args:
        features: elements of one example's message; a message of any shape is flattened behind its batch.
        hidden: units of each hidden layer. Narrower than ``features``, it is a bottleneck and costs little.
        depth: number of hidden layers; 0 is linear.
        context: number of classes, or of context features; 0 is none.
        out: shape of one example's answer, where it is not the message's own.
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
        _whole(1, features=features, hidden=hidden)
        _whole(0, depth=depth, context=context)
        self.features, self.context = features, context
        self.out = (out,) if isinstance(out, int) else out
        size = features if self.out is None else math.prod(self.out)
        widths = [features, *[hidden] * depth, size]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        # Linear maps of [h, c] side by side, without the copy that joining them would cost.
        self.of_context = nn.Linear(context, widths[1], bias=False) if context else None
        self.norms = nn.ModuleList(nn.BatchNorm1d(hidden) if batch_norm else nn.Identity() for _ in range(depth))
        _start_at_zero(self.layers[-1], *([self.of_context] if depth == 0 else []))

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
        if (c := _context(context, self.context, h)) is not None and self.of_context is not None:
            x = x.addmm(c, self.of_context.weight.t())
        return x

    def _hidden(self, x: Tensor) -> Tensor:
        """What the last layer sees, from what the first one gave."""
        for norm, layer in zip(self.norms, self.layers[1:-1], strict=False):
            x = layer(F.relu(norm(x)))
        return F.relu(self.norms[-1](x))

    def last(self) -> list[Any]:
        """The last layer's parameters: weight, the context's if it sees that, bias."""
        layer: Any = self.layers[-1]
        context = [self.of_context.weight] if self.of_context is not None and not self.norms else []
        return [layer.weight, *context, layer.bias]

    def features_of(self, h: Float[Tensor, "batch *features"], context: Context | None = None) -> Tensor:
        """What the last layer's parameters multiply, side by side in their order; 1 for the bias."""
        if self.norms:
            found = [self._hidden(self._first(h, context))]
        else:
            c = _context(context, self.context, h)
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


class Conv(nn.Module):
    """Convolutions that keep the resolution; the context joins as constant channels. Starts at zero.

    Args:
        channels: channels of the message, which has shape (batch, channels, height, width).
        hidden: channels of each hidden layer; None is as many as the message's.
        depth: number of hidden layers; 0 is linear.
        context: number of classes, or of context features; 0 is none.
        kernel: odd side of the kernels, in pixels.
        batch_norm: batch normalisation before each ReLU, as in the paper's M.

    References:
        Jaderberg et al. 2017, supplement: M for CNNs, one-hot label as channels (cDNI).
    """

    def __init__(
        self,
        channels: int,
        hidden: int | None = None,
        depth: int = 1,
        context: int = 0,
        kernel: int = 5,
        batch_norm: bool = False,
    ):
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"kernel is {kernel}; only an odd one keeps the resolution")
        hidden = channels if hidden is None else hidden
        _whole(1, channels=channels, hidden=hidden, kernel=kernel)
        _whole(0, depth=depth, context=context)
        self.channels, self.context = channels, context
        widths = [channels + context, *[hidden] * depth, channels]
        self.layers = nn.ModuleList(nn.Conv2d(a, b, kernel, padding=kernel // 2) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm2d(hidden) if batch_norm else nn.Identity() for _ in range(depth))
        _start_at_zero(self.layers[-1])

    def forward(
        self, h: Float[Tensor, "batch channels height width"], context: Context | None = None
    ) -> Float[Tensor, "batch channels height width"]:
        """The prediction, in the shape of h.

        Raises:
            ValueError: if h has other dimensions or channels, or the context doesn't fit.
        """
        if h.dim() != 4 or h.shape[1] != self.channels:
            raise ValueError(
                f"the message has shape {tuple(h.shape)}, Conv wants (batch, {self.channels}, height, width)"
            )
        x = h
        if (c := _context(context, self.context, h)) is not None:
            x = torch.cat([h, c[:, :, None, None].expand(-1, -1, *h.shape[2:])], dim=1)
        x = self.layers[0](x)
        for norm, layer in zip(self.norms, self.layers[1:], strict=True):
            x = layer(F.relu(norm(x)))
        return x


class ConvGlobal(nn.Module):
    """A ``Conv`` plus a bottleneck across the whole map, which it sees pooled. Starts at zero.

    The layers above read the map with other weights at every place, so its gradient depends on the place and on the
    error of the whole image; filters that are the same everywhere and see a few pixels can express neither.

    Args:
        shape: (channels, height, width) of one example's message.
        hidden: channels of each of the convolution's hidden layers; None is as many as the message's.
        bottleneck: units of each hidden layer across the map.
        depth: number of hidden layers of both.
        context: number of classes, or of context features; 0 is none.
        kernel: odd side of the kernels, in pixels.
        batch_norm: batch normalisation before each ReLU.
        pooled: largest side of the map that the bottleneck sees, in pixels.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        hidden: int | None = None,
        bottleneck: int = 128,
        depth: int = 1,
        context: int = 0,
        kernel: int = 5,
        batch_norm: bool = False,
        pooled: int = 8,
    ):
        super().__init__()
        channels, height, width = shape
        self.near = Conv(channels, hidden, depth, context, kernel, batch_norm)
        self.sides = min(height, pooled), min(width, pooled)
        self.across = MLP(channels * math.prod(self.sides), bottleneck, depth, context, shape, batch_norm)

    def forward(
        self, h: Float[Tensor, "batch channels height width"], context: Context | None = None
    ) -> Float[Tensor, "batch channels height width"]:
        """The prediction, in the shape of h.

        Raises:
            ValueError: if h has other dimensions or channels, or the context doesn't fit.
        """
        near = self.near(h, context)
        return near + self.across(F.adaptive_avg_pool2d(h, self.sides).contiguous(), context)


class Masked(nn.Module):
    """A model that sees a fixed random part of the message's numbers, the others as zero.

    Args:
        model: the model, called as ``model(h, context)``.
        features: numbers per example of the message, of shape (batch, features).
        share: of them that it sees, from 0 to 1.
        seed: of the choice.

    References:
        Boven et al. 2023: a cerebellum that is connected sparsely to the cortex it predicts for.
    """

    seen: Tensor

    def __init__(self, model: nn.Module, features: int, share: float, seed: int = 0):
        super().__init__()
        if not 0 <= share <= 1:
            raise ValueError(f"share is {share}; it must be from 0 (sees nothing) to 1 (all)")
        self.model = model
        order = torch.randperm(features, generator=torch.Generator().manual_seed(seed))
        self.register_buffer("seen", torch.zeros(features).index_fill(0, order[: round(share * features)], 1.0))

    @property
    def units(self) -> Any:
        """The model's own units, where it brings them along (a critic)."""
        return getattr(self.model, "units", None)

    def forward(self, h: Float[Tensor, "batch features"], context: Context | None = None) -> Tensor:
        """The model's answer to what it sees."""
        return self.model(h * self.seen.to(h.dtype), context)


def _context(context: Any, width: int, h: Tensor) -> Tensor | None:
    """The context as numbers of shape (batch, width): labels become one-hot, and no label (-100) a row of zeros."""
    if width == 0:
        return None  # a model without a context may stand where others have one
    if context is None:
        raise ValueError(f"this model wants a context of {width} (labels, or rows of numbers) and got none")
    if not isinstance(context, Tensor):
        raise TypeError(f"the context is a tensor, not {type(context).__name__}: torch.tensor(y)")
    if not context.is_floating_point() and context.shape == h.shape[:1]:
        _check_labels(context, width)
        context = context[:, None] == torch.arange(width, device=context.device)
    if context.shape != (len(h), width):
        one_each = context.shape == h.shape[:1]
        raise ValueError(
            f"the context has shape {tuple(context.shape)}, not ({len(h)},) labels or ({len(h)}, {width}) numbers"
            + (f"; labels are whole numbers, not {context.dtype}: y.long()" if one_each else "")
        )
    return context.to(h.dtype)


def _check_labels(labels: Tensor, classes: int) -> None:
    """Refuse what one-hot would silently make zeros of; on a device that is not waited for, it is zeros."""
    if not waits_for(labels) or not len(labels):
        return
    least, most = (int(each) for each in labels.aminmax())
    if most >= classes or (least < 0 and ((labels < 0) & (labels != NO_LABEL)).any()):
        raise ValueError(
            f"labels are from {least} to {most}; this model knows 0 to {classes - 1}, and {NO_LABEL} for none"
        )


def _whole(least: int, **settings: Any) -> None:
    """Refuse sizes of layers that are none."""
    for name, value in settings.items():
        if not isinstance(value, int) or value < least:
            raise ValueError(f"{name} is {value}; it must be a whole number from {least}")


def _start_at_zero(*layers: Any) -> None:
    for layer in layers:
        for parameter in layer.parameters() if layer is not None else ():
            nn.init.zeros_(parameter)
