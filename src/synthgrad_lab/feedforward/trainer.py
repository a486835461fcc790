"""A training step of a chain of layers: the method yields losses, and each layer has its optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from synthgrad import Quality, fused, probe
from synthgrad_lab.feedforward.methods import METHOD_CLASSES
from synthgrad_lab.feedforward.methods.base import Losses, criterion
from synthgrad_lab.feedforward.networks import network
from synthgrad_lab.feedforward.precision import prepare
from synthgrad_lab.feedforward.settings import Settings
from synthgrad_lab.running.optimizers import adam, set_learning_rates

EVALUATED = {"fcn": 2500, "cnn": 250}
"""Images at a time in the evaluation: a convolution's activations are large."""


class Trainer:
    """The layers of a chain, their method, and an optimizer for each layer.

    Layer k's optimizer also moves the models that learn beside it: the gradient model on the edge below, which layer
    k's backward pass teaches; its head; its input model.
    """

    def __init__(self, settings: Settings):
        self.settings = s = settings
        torch.manual_seed(s.seed)
        self.parts = [prepare(part, s) for part in network(s)]
        self.method = METHOD_CLASSES[s.method](s, self.parts).to(s.run.device)
        self.interfaces: Sequence[Any] = self.method.interfaces  # the lowest first
        self.updates = [0] * s.layers
        self.optimizers = [
            adam(list(part.parameters()), self.method.extra_parameters(k), s) for k, part in enumerate(self.parts)
        ]

    def losses(self, x: Tensor, y: Tensor) -> Losses:
        """The method's losses; with sparse updates (the paper's section 3.1) in random order, each by chance."""
        found, p = self.method.losses(x, y), self.settings.p_update
        if p == 1:
            yield from found
            return
        drawn = list(found)
        for i in torch.randperm(len(drawn)).tolist():
            if torch.rand(()).item() < p:
                yield drawn[i]

    def step(self, x: Tensor, y: Tensor) -> Tensor | None:
        """Train on one batch; returns the task's loss, or None if the top layer was not updated."""
        task = None
        for layers, loss in self.losses(x, y):
            loss.backward()
            for k in layers:
                self.update(k)
            if layers[-1] == len(self.parts) - 1:
                task = loss.detach()
        return task

    def update(self, k: int) -> None:
        """Update layer k, and the models that learn beside it."""
        if self.settings.optimizer.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.parts[k].parameters(), self.settings.optimizer.clip)
        self.optimizers[k].step()
        self.optimizers[k].zero_grad()
        self.updates[k] += 1

    def schedule(self, step: int) -> None:
        """Set the learning rates, and the method's own schedules, for a step."""
        share = step / self.settings.steps
        for optimizer in self.optimizers:
            set_learning_rates(optimizer, self.settings.optimizer.decay, share)
        self.method.set_step(step)

    @torch.no_grad()
    def error(self, x: Tensor, y: Tensor) -> float:
        """Classification error in percent, in evaluation mode."""
        chain = torch.nn.Sequential(*self.parts).eval()
        count = EVALUATED[self.settings.net]
        wrong = sum(
            (chain(a).argmax(1) != b).sum().item() for a, b in zip(x.split(count), y.split(count), strict=True)
        )
        chain.train()
        return 100 * wrong / len(y)

    def quality(self, x: Tensor, y: Tensor) -> dict[str, Quality]:
        """Each synthetic gradient compared with backpropagation's on a probe batch; empty without interfaces."""
        if not self.interfaces:
            return {}
        context = self.method.context(y)
        named = {f"h{k}": interface for k, interface in enumerate(self.interfaces, start=1)}
        return probe(named, lambda: criterion(fused(self.parts, self.interfaces, x, context), y), *self.parts)

    def state_dict(self) -> dict[str, Any]:
        """Everything that a later step depends on, except the order of the data."""
        return {
            "parts": [part.state_dict() for part in self.parts],
            "method": self.method.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "updates": self.updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a ``state_dict``."""
        for kind in ("parts", "optimizers"):
            for mine, theirs in zip(getattr(self, kind), state[kind], strict=True):
                mine.load_state_dict(theirs)
        self.method.load_state_dict(state["method"])
        self.updates = list(state["updates"])

    def count_parameters(self) -> tuple[int, int]:
        """Number of parameters of the layers, and of the models that are trained beside them."""
        layers = sum(p.numel() for part in self.parts for p in part.parameters())
        return layers, sum(p.numel() for p in self.method.parameters() if p.requires_grad)
