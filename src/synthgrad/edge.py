"""The one autograd Function under an interface: an identity that talks to M on the way back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from synthgrad.interface import Interface


class Edge(torch.autograd.Function):
    """Forward: the identity. Backward: pass the mixture down, hand M its regression gradient.

    Called as ``Edge.apply(h, prediction, interface, lam, consumed)``; with ``lam`` None nothing is passed down
    (``receive``). ``consumed`` is the prediction that is passed down, M's own or its target copy's.

    References:
        Jaderberg et al. 2017, Fig. 1 (the regression of M) and supplement A (the mixture).
    """

    @staticmethod
    def forward(
        ctx: Any, h: Tensor, prediction: Tensor, interface: Interface, lam: float | None, consumed: Tensor | None
    ) -> Tensor:
        """h, unchanged."""
        ctx.save_for_backward(prediction, consumed)
        ctx.interface, ctx.lam = interface, lam
        return h.view_as(h)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, delta: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        """λδ + (1-λ)·scale·δ̂ for h, and ∂/∂M of ‖M - δ/unit‖², averaged over the batch, for the prediction."""
        prediction, consumed = ctx.saved_tensors
        interface, lam = ctx.interface, ctx.lam
        passed = None
        # What is passed on uses the unit from before δ, as `send` had to.
        if lam == 1:
            passed = delta  # not even multiplied by 1: backprop, bit for bit
        elif lam is not None and ctx.needs_input_grad[0]:
            passed = interface._consumed(consumed, delta.dtype)
            if lam > 0:  # 0·δ would let a δ that is not finite through
                passed = passed.lerp(delta, lam)
        regression = interface._error(prediction, delta).mul_(2 / max(len(delta), 1))
        return passed, regression.to(prediction.dtype) if ctx.needs_input_grad[1] else None, None, None, None
