"""A gradient model in the form of a critic: it predicts the loss, and differentiates its prediction."""

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
"""``criterion(g(h), context)``: the task's own loss, a scalar, reduced and weighted as in the task."""


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
    r"""M(h, c) = ∂/∂h L(g(h), c): a small head g predicts the task's output, and M is the gradient of its loss.

    A plain M has to learn how the gradient depends on label and message, again whenever the parts have changed.
    In a critic this is built in. Only g is learned, in two ways at once: the arriving gradients δ are the target
    of ∂L/∂h (through a second derivative), and the *anchor* trains g on the task's loss itself. Both are in the
    task's own units, so δ also shows g how confident the parts above are.

    So the critic must compute the loss as the task does. With ``criterion``, the task's own scalar loss, it does
    so for any reduction, weights, smoothing or ignored labels. The default is the mean cross-entropy of the
    labelled examples.

    Args:
        head: g, called as ``g(h)``; it should be cheap compared with the part whose message it reads.
        loss: in place of a criterion, L: a loss for each example, whose mean or sum is the task's.
        anchor: weight of the loss itself relative to ‖∂L/∂h - δ‖², both averaged over the batch. At 0 g learns from
            gradients only.
        reduction: reduction of the task's loss over the batch, ``mean`` or ``sum``. With a criterion it only weighs
            the anchor against the regression; with ``loss`` it also sets the size of the prediction.
        criterion: the task's own loss, a scalar.

    Attributes:
        loss_scale: a factor on the task's loss; with a GradScaler, set it to ``scaler.get_scale()`` before each
            step.

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
        self.loss, self._criterion = loss, (criterion,)  # in a tuple, so that it is not registered as a child
        self.loss_scale = 1.0
        self.units = LossUnit()

    def forward(self, h: Float[Tensor, "batch *features"], context: Any = None) -> Float[Tensor, "batch *features"]:
        """The gradient of each example's own loss, in the shape of h.

        Raises:
            ValueError: if the labels are missing, or the loss has the wrong shape.
        """
        if context is None and self.loss is None and self.criterion is None:
            raise ValueError("a critic predicts a loss, and needs the labels as context")
        learning = torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        if not len(h):
            self._attach_unit(self.loss_scale)
            return torch.zeros_like(h)
        # The hooks save tensors unchanged; those of an activation checkpoint would rerun it for this inner pass.
        with torch.inference_mode(False), torch.enable_grad(), saved_tensors_hooks(_same, _same):
            leaf, context = copy_if_inference(h.detach()).requires_grad_(), copy_if_inference(context)
            loss = self._loss(self.head(leaf), context)
            (gradient,) = torch.autograd.grad(loss.sum(), leaf, create_graph=learning)
            if not waits_for(loss) or not finite(loss.detach()):  # for instance 0 / 0, if all labels are ignored
                gradient = gradient + 0.0 * loss.detach().sum()
            weight = self._weight(loss, gradient, context)
            attached = self._attach_unit(weight * self.loss_scale)
            if not loss.dim():  # into units of one example's loss, in which per-example losses are anyway
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
        if isinstance(self.criterion, nn.Module):  # its own parameters learn from the task alone
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
        """The weight of one example's loss in the task's loss.

        A scalar loss is weighted already. For it this only sets the weight of the regression relative to the
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
    """The prediction; its first backward pass also differentiates the anchor's loss."""

    @staticmethod
    def forward(ctx: Any, answer: Tensor, loss: Tensor, attached: AttachedUnit) -> Tensor:
        ctx.dtype, ctx.attached = loss.dtype, attached
        ctx.set_materialize_grads(False)
        return answer.view_as(answer)

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, None]:
        if gradient is None:  # the arriving gradient was not finite
            return None, None, None
        due, ctx.attached.anchor_due = ctx.attached.anchor_due, False
        return gradient, gradient.new_ones((), dtype=ctx.dtype) if due else None, None
