"""Shared by all tests: shapes and types checked at run time, fixed seeds, and one small float64 chain."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass

import jaxtyping
import pytest
import torch
import torch.nn.functional as F
from hypothesis import settings
from torch import Tensor, nn

# A shell starts background jobs with Ctrl-C ignored; tests of Ctrl-C must not depend on that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Before the first import of synthgrad: from here on beartype checks its annotations, shapes included.
jaxtyping.install_import_hook("synthgrad", "beartype.beartype")

settings.register_profile("synthgrad", deadline=None, max_examples=30, derandomize=True)
settings.load_profile("synthgrad")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def unchecked():
    """The library as users run it: without beartype, so that its own errors are seen."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@dataclass
class Chain:
    """Four layers of width 5 on 8 examples, 3 classes; batch and scales are powers of two, for exact tests."""

    parts: list[nn.Module]
    x: Tensor
    y: Tensor

    def criterion(self, out: Tensor) -> Tensor:
        return F.cross_entropy(out, self.y)

    def run(self, h: Tensor, first: int = 0) -> Tensor:
        for part in self.parts[first:]:
            h = part(h)
        return h

    def parameters(self) -> list[nn.Parameter]:
        return [parameter for part in self.parts for parameter in part.parameters()]

    def backprop(self) -> list[Tensor]:
        return list(torch.autograd.grad(self.criterion(self.run(self.x)), self.parameters()))

    def take_grads(self) -> list[Tensor | None]:
        grads = [parameter.grad for parameter in self.parameters()]
        for parameter in self.parameters():
            parameter.grad = None
        return grads

    def exact(self, k: int) -> Callable[..., Tensor]:
        """An M for the edge above part k that is never wrong: it computes the true gradient."""

        def model(h: Tensor, context: object) -> Tensor:
            with torch.enable_grad():
                h = h.detach().requires_grad_()
                return torch.autograd.grad(self.criterion(self.run(h, k + 1)), h)[0]

        return model

    def exact_interfaces(self, **settings) -> list:
        from synthgrad import Interface

        return [Interface(self.exact(k), unit=1.0, **settings) for k in range(len(self.parts) - 1)]

    def interfaces(self, **settings) -> list:
        """Interfaces with warm (random) models that see the label."""
        from synthgrad import Interface
        from synthgrad.models import MLP

        models = [MLP(5, hidden=4, context=3).double() for _ in self.parts[1:]]
        for model in models:
            for parameter in model.parameters():
                nn.init.normal_(parameter, std=0.3)
        return [Interface(model, **settings).double() for model in models]


@pytest.fixture
def chain() -> Chain:
    layers = [nn.Sequential(nn.Linear(5, 5), nn.Tanh()) for _ in range(3)]
    parts = nn.Sequential(*layers, nn.Linear(5, 3)).double()
    return Chain(list(parts), torch.randn(8, 5, dtype=torch.float64), torch.arange(8) % 3)


@pytest.fixture
def equal() -> Callable[..., bool]:
    """Bit for bit, tensor by tensor; with a tolerance, absolutely."""

    def compare(a: list[Tensor], b: list[Tensor], tolerance: float = 0.0) -> bool:
        if tolerance == 0:
            return all(torch.equal(p, q) for p, q in zip(a, b, strict=True))
        return all(p.shape == q.shape and (p - q).abs().max() <= tolerance for p, q in zip(a, b, strict=True))

    return compare
