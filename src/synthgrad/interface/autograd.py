"""The one autograd Function under an interface: the identity forwards, M's teaching backwards."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from synthgrad.interface.message import CachedPrediction
from synthgrad.interface.regression import Arrival, gradient_for_sender, regression_gradient

_WITHOUT_TEACHING: set[int] = set()
"""The backward passes of ``pull_back`` under way, by autograd's own number."""


class TeachOnBackward(torch.autograd.Function):
    """Forward: the identity. Backward: pass the mixture down, and hand M its regression gradient.

    Called as ``TeachOnBackward.apply(h, prediction, arrival, lam, consumed)``; with ``lam`` None nothing is passed
    down (``receive``). ``consumed`` is the prediction that is passed down, M's own or its target copy's.

    Only a backward pass that runs through M teaches it: ``torch.autograd.grad(loss, x)`` changes nothing.

    References:
        Jaderberg et al. 2017, Fig. 1 (the regression of M) and supplement A (the mixture).
    """

    @staticmethod
    def forward(
        ctx: Any,
        h: Tensor,
        prediction: Tensor,
        arrival: Arrival,
        lam: float | None,
        consumed: CachedPrediction | None,
    ) -> Tensor:
        """h, unchanged."""
        ctx.save_for_backward(prediction, consumed and consumed.prediction.detach())
        ctx.arrival, ctx.lam = arrival, lam
        ctx.unit, ctx.good = consumed and consumed.unit, consumed and consumed.good
        return h.view_as(h)

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, delta: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        """λδ + (1-λ)·scale·δ̂ for h, and ∂/∂M of ‖M - δ/unit‖², averaged over the batch, for the prediction."""
        prediction, consumed = ctx.saved_tensors
        arrival, lam, silent = ctx.arrival, ctx.lam, torch._C._current_graph_task_id() in _WITHOUT_TEACHING
        teaches = not silent and _will_run(ctx.next_functions[1][0])
        passed = None
        if lam == 1:
            passed = delta  # not even multiplied by 1: backprop, bit for bit
        elif lam is not None and ctx.needs_input_grad[0]:
            # The synthetic gradient uses the unit from before δ, as in `send`.
            if silent or arrival.ledger.passed:
                passed = torch.zeros_like(delta)
            else:
                passed = gradient_for_sender(arrival.regression, consumed, ctx.unit, ctx.good, delta.dtype)
                arrival.ledger.passed = teaches
            if arrival.omitted is not None:
                passed = passed.masked_fill(arrival.omitted.view(-1, *[1] * (passed.dim() - 1)), 0.0)
            if lam > 0:  # 0·δ would let a δ that is not finite through
                passed = passed.lerp(delta, lam)
        gradient = None
        if teaches:
            with torch.no_grad():
                gradient = regression_gradient(prediction, delta.detach(), arrival)
        return passed, gradient, None, None, None


def _will_run(node: Any) -> bool:
    """Whether the backward pass under way will run a node."""
    if node is None:
        return False
    try:
        return torch._C._will_engine_execute_node(node)
    except RuntimeError:  # a leaf, in a pass that only computes other gradients
        return False


def pull_back(output: Tensor, into: Any, vector: Tensor) -> Tensor | None:
    """(∂output/∂into)ᵀ vector. Interfaces on the way neither learn from the pass nor add their own predictions.

    The graph stays. Users' hooks on the way do run.

    Args:
        output: any shape.
        into: a tensor of its graph, or a ``GradientEdge``.
        vector: of output's shape.

    Returns:
        A tensor of the shape of ``into``, or None if output does not depend on it.
    """
    passes: list[int] = []

    def mark(gradient: Tensor) -> None:
        passes.append(torch._C._current_graph_task_id())
        _WITHOUT_TEACHING.add(passes[0])

    root = output.view_as(output)
    root.register_hook(mark)
    try:
        (found,) = torch.autograd.grad(root, into, vector, retain_graph=True, allow_unused=True)
    finally:
        _WITHOUT_TEACHING.difference_update(passes)
    return found
