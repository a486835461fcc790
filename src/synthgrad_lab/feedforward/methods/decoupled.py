"""An interface between every two layers: DNI, cDNI, critic; unlocked, completely unlocked or fused."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from synthgrad import Critic, Interface, completely_unlocked, fused, unlocked
from synthgrad_lab.feedforward.methods.base import Losses, Method, criterion
from synthgrad_lab.feedforward.networks import gradient_model, head, input_model
from synthgrad_lab.feedforward.precision import prepare
from synthgrad_lab.feedforward.settings import Settings


class Decoupled(Method):
    """Each layer learns from a synthetic gradient; its optimizer also moves the gradient model on the edge below.

    References:
        Jaderberg et al. 2017, sections 2.1 and 3.1, Fig. 2 and 6, supplement A.
    """

    def __init__(self, s: Settings, parts: list[nn.Module]):
        super().__init__(s, parts)
        self.between = nn.ModuleList(_interface(s, k) for k in range(len(parts) - 1))
        self.interfaces = list(self.between)  # pyright: ignore[reportAttributeAccessIssue]
        self.set_step(0)

    def losses(self, x: Tensor, y: Tensor) -> Losses:
        """Each layer's loss, as soon as the layer has run; one loss for all when fused, or warming up."""
        s, context = self.settings, self.context(y)
        if s.unlock == "fused" or self.step < s.mixing.warm_up:
            yield range(len(self.parts)), criterion(fused(self.parts, self.interfaces, x, context), y)
            return
        run = completely_unlocked if s.unlock == "complete" else unlocked
        losses = run(self.parts, self.interfaces, x, lambda out: criterion(out, y), context)
        yield from (([k], loss) for k, loss in losses)

    def extra_parameters(self, k: int) -> list[nn.Parameter]:
        """M of the edge below, which layer k's backward pass teaches, and the input model of the edge above."""
        below: Any = self.interfaces[k - 1].gradient_model if k > 0 else None
        above: Any = self.interfaces[k].input_model if k < len(self.interfaces) else None
        return [p for model in (below, above) if model is not None for p in model.parameters()]

    def set_step(self, step: int) -> None:
        """Set each interface's lam: 1 during the warm-up, then on a line from ``lam`` to ``lam_end``."""
        s, self.step = self.settings, step
        last = s.mixing.lam_end or s.mixing.lam
        for k, interface in enumerate(self.interfaces):
            start, end = s.mixing.lam[k % len(s.mixing.lam)], last[k % len(last)]
            interface.lam = 1.0 if step < s.mixing.warm_up else start + (end - start) * step / s.steps


def _interface(s: Settings, k: int) -> Interface:
    model: Any = prepare(head(s, k) if s.method == "critic" else gradient_model(s, k), s)
    if s.method == "critic":
        model = Critic(model, anchor=s.model.anchor).to(s.run.device)
    inputs = prepare(input_model(s, k), s) if s.unlock == "complete" else None
    interface = Interface(model, inputs, unit_factor=s.model.unit_factor, target_every=s.model.target_every)
    return interface.to(s.run.device)
