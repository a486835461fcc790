"""The one autograd Function under an interface: an identity that talks to M on the way back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from synthgrad.interface.message import Answer
from synthgrad.interface.regression import Arrival, taught

_LINEAR: set[int] = set()
"""The passes of ``pulled_back`` that are under way, by autograd's own number."""


class Edge(torch.autograd.Function):
    """Forward: the identity. Backward: pass the mixture down, hand M its regression gradient.

    Called as ``Edge.apply(h, prediction, arrival, lam, consumed)``; with ``lam`` None nothing is passed down
    (``receive``). ``consumed`` is M's answer that is passed down, M's own or its target copy's.

    M is taught only by a pass that runs through M: ``torch.autograd.grad(loss, x)`` is a look, and leaves no trace.

    References:
        Jaderberg et al. 2017, Fig. 1 (the regression of M) and supplement A (the mixture).
    """

    @staticmethod
    def forward(
        ctx: Any, h: Tensor, prediction: Tensor, arrival: Arrival, lam: float | None, consumed: Answer | None
    ) -> Tensor:
        """h, unchanged."""
        ctx.save_for_backward(prediction, consumed and consumed.prediction.detach())
        ctx.arrival, ctx.lam, ctx.unit, ctx.good = (
            arrival,
            lam,
            consumed and consumed.unit,
            consumed and consumed.good,
        )
        return h.view_as(h)

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, delta: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        """λδ + (1-λ)·scale·δ̂ for h, and ∂/∂M of ‖M - δ/unit‖², averaged over the batch, for the prediction."""
        prediction, consumed = ctx.saved_tensors
        arrival, lam, linear = ctx.arrival, ctx.lam, torch._C._current_graph_task_id() in _LINEAR
        teaches = not linear and _runs(ctx.next_functions[1][0])
        passed = None
        if lam == 1:
            passed = delta  # not even multiplied by 1: backprop, bit for bit
        elif lam is not None and ctx.needs_input_grad[0]:
            # What is passed on uses the unit from before δ, as `send` had to.
            if linear or arrival.ledger.passed:
                passed = torch.zeros_like(delta)
            else:
                passed = arrival.interface._consumed(consumed, ctx.unit, ctx.good, delta.dtype)
                arrival.ledger.passed = teaches
            if arrival.omitted is not None:
                passed = passed.masked_fill(arrival.omitted.view(-1, *[1] * (passed.dim() - 1)), 0.0)
            if lam > 0:  # 0·δ would let a δ that is not finite through
                passed = passed.lerp(delta, lam)
        regression = None
        if teaches:
            with torch.no_grad():
                regression = taught(prediction, delta.detach(), arrival)
        return passed, regression, None, None, None


def _runs(node: Any) -> bool:
    """Whether the pass under way will run a node."""
    if node is None:
        return False
    try:
        return torch._C._will_engine_execute_node(node)
    except RuntimeError:  # a leaf, in a pass that only wants other gradients
        return False


def pulled_back(output: Tensor, into: Any, vector: Tensor) -> Tensor | None:
    """(∂output/∂into)ᵀ vector, without a trace on the interfaces in between; their own answers are left out.

    The graph stays. Users' hooks on the way do run.

    Args:
        output: any shape.
        into: a tensor of its graph, or a ``GradientEdge``.
        vector: of output's shape.

    Returns:
        A tensor of the shape of ``into``, or None if output does not depend on it.
    """
    begun: list[int] = []

    def mark(gradient: Tensor) -> None:
        begun.append(torch._C._current_graph_task_id())
        _LINEAR.add(begun[0])

    root = output.view_as(output)
    root.register_hook(mark)
    try:
        (found,) = torch.autograd.grad(root, into, vector, retain_graph=True, allow_unused=True)
    finally:
        _LINEAR.difference_update(begun)
    return found
