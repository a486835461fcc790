"""A gradient model in critic form: the gradient of a small learned prediction of the loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call

from synthgrad.interface.message import ATTACHED_UNITS, AttachedUnit, copy_if_inference
from synthgrad.interface.numbers import finite, waits_for
from synthgrad.interface.units import LossUnit
from synthgrad.models.context import NO_LABEL

Loss = Callable[[Tensor, Any], Tensor]
"""``L(g(h), context)``: the loss of each example, shape (batch,)."""
Criterion = Callable[[Tensor, Any], Tensor]
"""``criterion(g(h), context)``: the task's own loss, a scalar, reduced and weighted as the task does it."""


def cross_entropy(
    logits: Float[Tensor, "batch classes *rest"], labels: Tensor, reduction: str = "mean"
) -> Float[Tensor, ""]:
    """The cross-entropy of the examples that have a label, in nats, in single precision at least.

    Raises:
        TypeError: if the labels are numbers with a fraction.
    """
    if labels.is_floating_point() and labels.shape != logits.shape:
        raise TypeError(f"labels are whole numbers, not {labels.dtype} of shape {tuple(labels.shape)}: y.long()")
    return F.cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), labels, reduction=reduction)


class Critic(nn.Module):
    r"""M(h, c) = ∂/∂h L(g(h), c): a small head g predicts the outcome, and its loss' gradient is M's answer.

    A regression has to learn from scratch, and again whenever the parts have moved, how the gradient depends on
    label and message. A critic has that built in: only g is learned, in two ways at once. The gradients δ that
    arrive regress ∂L/∂h on them (through a second derivative), and the *anchor* trains g on the task's loss
    itself. Both are in the task's own units, so that δ also tells g how sure the parts above are.

    So the critic must compute the loss as the task does. With ``criterion``, the task's own scalar loss, it does so
    whatever the reduction, weights, smoothing or ignored labels are. The default is the mean cross-entropy of the
    examples that have a label.

    Args:
        head: g, called as ``g(h)``; it should cost little beside the part whose message it reads.
        loss: in place of a criterion, L: a loss of each example, whose mean or sum is the task's.
        anchor: weight of the loss itself beside ‖∂L/∂h - δ‖², both averaged over the batch. 0 is gradients only.
        reduction: how the task's loss is reduced over the batch, ``mean`` or ``sum``. With a criterion it weighs
            only the anchor against the regression; with ``loss`` it also decides the size of the answer.
        criterion: the task's own loss, a scalar.

    Attributes:
        loss_scale: the factor on the task's loss, where there is one; with a GradScaler, set it to
            ``scaler.get_scale()`` before each step.

    Example:
        >>> g = nn.Sequential(nn.Flatten(), nn.Linear(256, 10))
        >>> interface = Interface(Critic(g, criterion=nn.CrossEntropyLoss(label_smoothing=0.1)))
        >>> interface.send(h, y).backward()

    References:
        Miyato et al. 2017 (VFBN); Czarnecki et al. 2017 (Sobolev training). The anchor alone, without gradients
        from above, is decoupled greedy learning (Belilovsky et al. 2020).
    """

    def __init__(
        self,
        head: nn.Module,
        loss: Loss | None = None,
        anchor: float = 1.0,
        reduction: Literal["mean", "sum"] = "mean",
        *,
        criterion: Criterion | None = None,
    ):
        super().__init__()
        if not 0 <= anchor < math.inf:
            raise ValueError(f"anchor is {anchor}; it weighs a loss and must be a number of at least 0")
        if reduction not in ("mean", "sum"):
            raise ValueError(f"reduction is {reduction!r}; wanted 'mean' or 'sum' (for any other loss: criterion=)")
        if loss is not None and criterion is not None:
            raise ValueError("a critic takes loss (one number for each example) or criterion (a scalar), not both")
        self.head, self.anchor, self.reduction = head, anchor, reduction
        self.loss, self._criterion = loss, (criterion,)  # in a tuple: the task's own loss is not ours to register
        self.loss_scale = 1.0
        self.units = LossUnit()

    def forward(self, h: Float[Tensor, "batch *features"], context: Any = None) -> Float[Tensor, "batch *features"]:
        """The gradient of each example's own loss, in the shape of h.

        Raises:
            ValueError: if the labels are missing, or the loss has the wrong shape.
        """
        if context is None and self.loss is None and self.criterion is None:
            raise ValueError("a critic predicts a loss, and needs the context that the loss needs: the labels")
        learning = torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        if not len(h):
            self._attach_unit(self.loss_scale)
            return torch.zeros_like(h)
        # Tensors are saved as they are: an activation checkpoint around would run again for this inner pass alone.
        with torch.inference_mode(False), torch.enable_grad(), saved_tensors_hooks(_same, _same):
            leaf, context = copy_if_inference(h.detach()).requires_grad_(), copy_if_inference(context)
            loss = self._loss(self.head(leaf), context)
            (gradient,) = torch.autograd.grad(loss.sum(), leaf, create_graph=learning)
            if not waits_for(loss) or not finite(loss.detach()):  # as of labels that are all ignored: 0 / 0
                gradient = gradient + 0.0 * loss.detach().sum()
            weight = self._weight(loss, gradient, context)
            attached = self._attach_unit(weight * self.loss_scale)
            if not loss.dim():  # in units of one example's loss, as the losses of examples are by themselves
                gradient = gradient / weight
            if not learning:
                return gradient.detach()
            if self.anchor == 0:
                return gradient
            mean = loss / len(h) if not loss.dim() and self.reduction == "sum" else loss.mean()
            return _Anchored.apply(gradient, mean * self.anchor, attached)  # pyright: ignore[reportReturnType]

    @property
    def criterion(self) -> Criterion | None:
        """The task's own loss."""
        return self._criterion[0]

    def _loss(self, out: Tensor, context: Any) -> Tensor:
        """The task's loss, a scalar, or one number for each example."""
        shape = ()
        if isinstance(self.criterion, nn.Module):  # what it learns itself, it learns from the task
            own = {name: p.detach() for name, p in self.criterion.named_parameters()}
            loss = functional_call(self.criterion, own, (out, context))
        elif self.criterion is not None:
            loss = self.criterion(out, context)
        elif self.loss is None:
            loss = cross_entropy(out, context, self.reduction)
        else:
            loss, shape = self.loss(out, context), out.shape[:1]
        if loss.shape != shape:
            wanted = f"one number for each of the {len(out)} examples: reduction='none'" if shape else "a scalar"
            raise ValueError(f"the critic's loss has shape {tuple(loss.shape)}, wanted {wanted}")
        return loss

    def _weight(self, loss: Tensor, gradient: Tensor, context: Any) -> float | Tensor:
        """The weight of one example's loss in the task's.

        A scalar loss has taken care of it by itself; there this only sets how much the regression weighs beside the
        anchor, so that examples without a loss change nothing.
        """
        if self.reduction == "sum":
            return 1.0
        n = len(gradient)
        if loss.dim():
            return 1 / n
        if self.criterion is None and not context.is_floating_point():
            counted = (context != NO_LABEL).sum()
        else:
            counted = (gradient.detach() != 0).flatten(1).any(1).sum()
        if waits_for(counted):
            return 1 / math.sqrt(n * (counted.item() or n))
        return (n * counted.clamp(min=1)).rsqrt()

    def _attach_unit(self, unit: float | Tensor) -> AttachedUnit:
        """Attach the unit to this prediction, for the interface that runs the critic."""
        self.units.value = torch.as_tensor(unit)
        attached, collected = AttachedUnit(unit), ATTACHED_UNITS.get()
        if collected is not None:
            collected.append(attached)
        return attached


def _same(tensor: Tensor) -> Tensor:
    return tensor


class _Anchored(torch.autograd.Function):
    """The answer, whose backward pass, whatever regresses it, also differentiates the anchor's loss, once."""

    @staticmethod
    def forward(ctx: Any, answer: Tensor, loss: Tensor, attached: AttachedUnit) -> Tensor:
        ctx.dtype, ctx.attached = loss.dtype, attached
        ctx.set_materialize_grads(False)
        return answer.view_as(answer)

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, None]:
        if gradient is None:  # what arrived was not finite: it teaches nothing
            return None, None, None
        due, ctx.attached.anchor_due = ctx.attached.anchor_due, False
        return gradient, gradient.new_ones((), dtype=ctx.dtype) if due else None, None
