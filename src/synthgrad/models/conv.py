"""Gradient models for feature maps: convolutions, alone or with a bottleneck across the whole map."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from synthgrad.models.context import Context, context_of
from synthgrad.models.layers import check_sizes, start_at_zero
from synthgrad.models.mlp import MLP


class Conv(nn.Module):
    """Convolutions that keep the resolution; the context joins as constant channels. Starts at zero.

    Args:
        channels: channels of the message, which has shape (batch, channels, height, width).
        hidden: channels of each hidden layer; None means as many as in the message.
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
        check_sizes(1, channels=channels, hidden=hidden, kernel=kernel)
        check_sizes(0, depth=depth, context=context)
        self.channels, self.context = channels, context
        widths = [channels + context, *[hidden] * depth, channels]
        self.layers = nn.ModuleList(nn.Conv2d(a, b, kernel, padding=kernel // 2) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm2d(hidden) if batch_norm else nn.Identity() for _ in range(depth))
        start_at_zero(self.layers[-1])

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
        if (c := context_of(context, self.context, h)) is not None:
            x = torch.cat([h, c[:, :, None, None].expand(-1, -1, *h.shape[2:])], dim=1)
        x = self.layers[0](x)
        for norm, layer in zip(self.norms, self.layers[1:], strict=True):
            x = layer(F.relu(norm(x)))
        return x


class ConvGlobal(nn.Module):
    """A ``Conv`` plus a bottleneck across the whole, pooled map. Starts at zero.

    The layers above have other weights at each position, so the gradient depends on the position and on the error
    of the whole image. A convolution, with the same few pixels' weights everywhere, can express neither.

    Args:
        shape: (channels, height, width) of one example's message.
        hidden: channels of each of the convolution's hidden layers; None means as many as in the message.
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
