"""A gradient model in critic form: the gradient of a small learned prediction of the loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from synthgrad.units import Unit

Loss = Callable[[Tensor, Any], Tensor]
"""``L(g(h), context)``: the loss of each example, shape (batch,)."""


def cross_entropy(logits: Float[Tensor, "batch classes"], labels: Tensor) -> Float[Tensor, " batch"]:
    """Each example's cross-entropy, in nats."""
    return F.cross_entropy(logits.float(), labels, reduction="none")


class Critic(nn.Module):
    r"""M(h, c) = ∂/∂h L(g(h), c): a small head g predicts the outcome, and its loss' gradient is M's answer.

    A regression has to learn from scratch, and again whenever the parts have moved, how the gradient depends on
    label and message. A critic has that built in: only g is learned, in two ways at once. The gradients that
    arrive regress ∂L/∂h on δ (through a second derivative), and the *anchor* trains g on the task's loss itself.

    The answer is divided by its own running size, as an interface divides δ, so that both are in the same units;
    a learned factor (``gain``) lets M answer smaller than δ where it is unsure.

    Args:
        head: g, called as ``g(h)``; it should cost little beside the part whose message it reads.
        loss: L, the loss of each example.
        anchor: weight of the task's loss: at 1, one nat weighs as much as a relative error of 1 in the gradient
            (‖M - δ/unit‖² equal to the unit's mean size of ‖δ/unit‖²). 0 is gradients only.
        unit_factor: the interface's ``unit_factor``.
        unit_decay: how much of the mean square of M's own answers is kept per batch.

    Example:
        >>> g = nn.Sequential(nn.Flatten(), nn.Linear(256, 10))
        >>> interface = Interface(Critic(g))
        >>> interface.send(h, y).backward()

    References:
        Miyato et al. 2017 (VFBN); Czarnecki et al. 2017 (Sobolev training). The anchor alone, without gradients
        from above, is decoupled greedy learning (Belilovsky et al. 2020).
    """

    def __init__(
        self,
        head: nn.Module,
        loss: Loss = cross_entropy,
        anchor: float = 1.0,
        *,
        unit_factor: float = 32.0,
        unit_decay: float = 0.99,
    ):
        super().__init__()
        if not 0 <= anchor < math.inf:
            raise ValueError(f"anchor is {anchor}; it weighs a loss and must be a number of at least 0")
        self.head, self.loss, self.anchor = head, loss, anchor
        self.gain = nn.Parameter(torch.zeros(()))  # of the logarithm: the factor stays positive
        self.units = Unit(None, unit_factor, unit_decay)

    def forward(self, h: Float[Tensor, "batch *features"], context: Any = None) -> Float[Tensor, "batch *features"]:
        """The prediction, in the shape of h.

        Raises:
            ValueError: if the context is missing, or the loss is not one number per example.
        """
        if context is None:
            raise ValueError("a critic predicts a loss, and needs the context that the loss needs: the labels")
        learning = torch.is_grad_enabled()
        with torch.enable_grad():
            leaf = h.detach().requires_grad_()
            losses = self.loss(self.head(leaf), context)
            if losses.shape != h.shape[:1]:
                raise ValueError(
                    f"the critic's loss has shape {tuple(losses.shape)}, wanted one number for each of the "
                    f"{len(h)} examples: reduction='none'"
                )
            (gradient,) = torch.autograd.grad(losses.sum(), leaf, create_graph=learning)
            if learning and gradient.numel():
                rms = torch.linalg.vector_norm(gradient.detach()) / math.sqrt(gradient.numel())
                self.units.follow(rms.float())
            answer = gradient * (self.gain.exp() / self.units.value).to(gradient.dtype)
            if not learning:
                return answer.detach()
            if self.anchor == 0 or not len(h):
                return answer
            weight = self.anchor * (h[0].numel() / self.units.factor**2)
            return _Anchored.apply(answer, losses.mean() * weight)  # pyright: ignore[reportReturnType]


class _Anchored(torch.autograd.Function):
    """The answer, whose backward pass, whatever regresses it, also differentiates the anchor's loss."""

    @staticmethod
    def forward(ctx: Any, answer: Tensor, loss: Tensor) -> Tensor:
        ctx.dtype = loss.dtype
        return answer.view_as(answer)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return gradient, gradient.new_ones((), dtype=ctx.dtype)
