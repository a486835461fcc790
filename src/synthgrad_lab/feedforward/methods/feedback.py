"""Direct feedback alignment: the output's error reaches each layer through fixed random weights."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthgrad_lab.feedforward.methods.base import Losses, Method, criterion
from synthgrad_lab.feedforward.networks import CLASSES, message_shape
from synthgrad_lab.feedforward.settings import Settings


class FeedbackAlignment(Method):
    """Each layer's gradient is B(p - y), with B random and fixed: all layers wait for the output only.

    References:
        Nøkland 2016 (arXiv 1609.01596).
    """

    def __init__(self, s: Settings, parts: list[nn.Module]):
        super().__init__(s, parts)
        for k in range(len(parts) - 1):
            back = torch.randn(CLASSES, *message_shape(s, k), device=s.run.device) / math.sqrt(CLASSES)
            self.register_buffer(f"back{k}", back)

    def losses(self, x: Tensor, y: Tensor) -> Losses:
        """The top layer's loss first: its error gives the other layers their gradients."""
        messages = [x]
        for part in self.parts:
            messages.append(part(messages[-1].detach()))
        out = messages.pop()
        yield [len(self.parts) - 1], criterion(out, y)
        error = (out.detach().float().softmax(1) - F.one_hot(y, CLASSES)) / max(len(y), 1)
        for k, h in enumerate(messages[1:]):
            delta = torch.tensordot(error, self.get_buffer(f"back{k}"), 1)
            yield [k], (h * delta).sum()
