"""One training step by each method: what is cut, what learns from which loss, and when."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthgrad import Interface, Quality, chained, probe, unlocked
from synthgrad.models import MLP
from synthgrad_lab.networks import fcn
from synthgrad_lab.recipes import Settings


class Trainer:
    """The layers of a chain, the interfaces between them, an optimizer per layer, and one step of training.

    Layer k's optimizer also moves the gradient model on the edge below it: that one is taught by layer
    k's backward pass.
    """

    def __init__(self, settings: Settings):
        self.settings = s = settings
        torch.manual_seed(s.seed)
        self.parts = [part.to(s.device) for part in fcn(s.layers, s.width)]
        cut = s.method in ("dni", "cdni")
        self.interfaces = [_interface(s).to(s.device) for _ in self.parts[1:]] if cut else []
        # Decoupled greedy learning (Belilovsky et al. 2020) in its smallest form: a linear read-out per layer.
        heads = len(self.parts) - 1 if s.method == "local-loss" else 0
        self.heads = [nn.Linear(s.width, 10).to(s.device) for _ in range(heads)]
        self.updates = [0] * s.layers
        self.optimizers = []
        for k, part in enumerate(self.parts):
            groups: list[dict[str, Any]] = [{"params": list(part.parameters()), "initial_lr": s.lr}]
            if cut and k > 0:
                below = list(self.interfaces[k - 1].parameters())
                betas = s.model_beta1, s.model_beta2
                groups.append({"params": below, "initial_lr": s.model_lr, "betas": betas})
            if k < heads:
                groups[0]["params"] += self.heads[k].parameters()
            self.optimizers.append(torch.optim.Adam(groups, lr=s.lr, fused=True))

    def losses(self, x: Tensor, y: Tensor) -> Iterator[tuple[Sequence[int], Tensor]]:
        """Each loss of a step and the layers that learn from it, ready to be differentiated."""

        def criterion(out: Tensor) -> Tensor:
            return F.cross_entropy(out, y)

        s, top, everything = self.settings, len(self.parts) - 1, range(len(self.parts))
        context = y if s.method == "cdni" else None
        if s.method == "no-bprop":
            with torch.no_grad():
                h = nn.Sequential(*self.parts[:-1])(x)
            yield [top], criterion(self.parts[-1](h))
        elif s.method == "bprop":
            yield everything, criterion(nn.Sequential(*self.parts)(x))
        elif s.method == "local-loss":
            h = x
            for k, part in enumerate(self.parts):
                h = part(h.detach())
                yield [k], criterion(self.heads[k](h) if k < top else h)
        elif s.unlock == "fused":
            yield everything, criterion(chained(self.parts, self.interfaces, x, context))
        else:
            for k, loss in unlocked(self.parts, self.interfaces, x, criterion, context):
                yield [k], loss

    def step(self, x: Tensor, y: Tensor) -> Tensor:
        """Train on one batch; returns the task's loss, detached."""
        loss = None
        for layers, loss in self.losses(x, y):
            loss.backward()
            for k in layers:
                self.update(k)
        assert loss is not None
        return loss.detach()

    def update(self, k: int) -> None:
        """Move layer k, and the gradient model below it, along their gradients."""
        self.optimizers[k].step()
        self.optimizers[k].zero_grad()
        self.updates[k] += 1

    def schedule(self, step: int) -> None:
        """Set the learning rates for a step: a half cosine from the settings' rates to zero."""
        factor = (1 + math.cos(math.pi * step / self.settings.steps)) / 2
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor

    @torch.no_grad()
    def error(self, x: Tensor, y: Tensor) -> float:
        """Classification error of the chain as it stands, in percent."""
        for part in self.parts:
            part.eval()
        wrong = sum(
            (nn.Sequential(*self.parts)(a).argmax(1) != b).sum().item()
            for a, b in zip(x.split(2500), y.split(2500), strict=True)
        )
        for part in self.parts:
            part.train()
        return 100 * wrong / len(y)

    def quality(self, x: Tensor, y: Tensor) -> dict[str, Quality]:
        """Each synthetic gradient against backprop's on a probe batch; empty without interfaces."""
        if not self.interfaces:
            return {}
        context = y if self.settings.method == "cdni" else None
        named = {f"h{k}": interface for k, interface in enumerate(self.interfaces, start=1)}
        return probe(
            named,
            lambda: F.cross_entropy(chained(self.parts, self.interfaces, x, context), y),
            *self.parts,
        )

    def state_dict(self) -> dict[str, Any]:
        """All that a later step depends on, but for the data's order."""
        return {
            "parts": [part.state_dict() for part in self.parts],
            "interfaces": [interface.state_dict() for interface in self.interfaces],
            "heads": [head.state_dict() for head in self.heads],
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "updates": self.updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a ``state_dict``."""
        for kind in ("parts", "interfaces", "heads", "optimizers"):
            for mine, theirs in zip(getattr(self, kind), state[kind], strict=True):
                mine.load_state_dict(theirs)
        self.updates = list(state["updates"])


def _interface(s: Settings) -> Interface:
    context = 10 if s.method == "cdni" else 0
    model = MLP(s.width, s.model_hidden, s.model_depth, context, batch_norm=s.model_norm)
    return Interface(model, lam=s.lam, unit_factor=s.unit_factor)
