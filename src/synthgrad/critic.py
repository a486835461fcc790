"""A gradient model in critic form: the gradient of a small learned prediction of the loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from synthgrad.units import LossUnit

Loss = Callable[[Tensor, Any], Tensor]
"""``L(g(h), context)``: the loss of each example, shape (batch,)."""


def cross_entropy(logits: Float[Tensor, "batch classes"], labels: Tensor) -> Float[Tensor, " batch"]:
    """Each example's cross-entropy, in nats, in single precision at least."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(logits, labels, reduction="none")


class Critic(nn.Module):
    r"""M(h, c) = ∂/∂h L(g(h), c): a small head g predicts the outcome, and its loss' gradient is M's answer.

    A regression has to learn from scratch, and again whenever the parts have moved, how the gradient depends on
    label and message. A critic has that built in: only g is learned, in two ways at once. The gradients δ that
    arrive regress ∂L/∂h on them (through a second derivative), and the *anchor* trains g on the task's loss
    itself. Both are in the task's own units, so that δ also tells g how sure the parts above are: M brings its
    unit along (``units``), and needs to know how the task's loss is reduced and scaled.

    Args:
        head: g, called as ``g(h)``; it should cost little beside the part whose message it reads.
        loss: L, the task's loss of each example.
        anchor: weight of L itself beside ‖∂L/∂h - δ‖², both averaged over the batch. 0 is gradients only.
        reduction: how the task's loss is reduced over the batch, ``mean`` or ``sum``.

    Attributes:
        loss_scale: the factor on the task's loss, where there is one; with a GradScaler, set it to
            ``scaler.get_scale()`` before each step.

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
        reduction: Literal["mean", "sum"] = "mean",
    ):
        super().__init__()
        if not 0 <= anchor < math.inf:
            raise ValueError(f"anchor is {anchor}; it weighs a loss and must be a number of at least 0")
        self.head, self.loss, self.anchor, self.reduction = head, loss, anchor, reduction
        self.loss_scale = 1.0
        self.units = LossUnit()

    def forward(self, h: Float[Tensor, "batch *features"], context: Any = None) -> Float[Tensor, "batch *features"]:
        """The gradient of each example's own loss, in the shape of h.

        Raises:
            ValueError: if the labels are missing, or the loss is not one number per example.
        """
        if context is None and self.loss is cross_entropy:
            raise ValueError("a critic predicts a loss, and needs the context that the loss needs: the labels")
        learning = torch.is_grad_enabled()
        self.units.value.fill_(self.loss_scale / (max(len(h), 1) if self.reduction == "mean" else 1))
        with torch.enable_grad():
            leaf = h.detach().requires_grad_()
            losses = self.loss(self.head(leaf), context)
            if losses.shape != h.shape[:1]:
                raise ValueError(
                    f"the critic's loss has shape {tuple(losses.shape)}, wanted one number for each of the "
                    f"{len(h)} examples: reduction='none'"
                )
            (gradient,) = torch.autograd.grad(losses.sum(), leaf, create_graph=learning)
            if not learning or self.anchor == 0 or not len(h):
                return gradient if learning else gradient.detach()
            return _Anchored.apply(gradient, losses.mean() * self.anchor)  # pyright: ignore[reportReturnType]


class _Anchored(torch.autograd.Function):
    """The answer, whose backward pass, whatever regresses it, also differentiates the anchor's loss."""

    @staticmethod
    def forward(ctx: Any, answer: Tensor, loss: Tensor) -> Tensor:
        ctx.dtype = loss.dtype
        return answer.view_as(answer)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor, Tensor]:
        return gradient, gradient.new_ones((), dtype=ctx.dtype)
