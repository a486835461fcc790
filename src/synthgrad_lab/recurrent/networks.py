"""The recurrent core with its read-out, gradient models, and heads that guess targets to come."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from synthgrad import Critic, Interface, RecurrentInterface
from synthgrad.models import MLP, Masked
from synthgrad.recurrent.state import Leaves
from synthgrad_lab.recurrent.settings import Settings
from synthgrad_lab.recurrent.tasks.base import Task


class Core(nn.Module):
    """A recurrent core with a linear read-out: ``core(x, state)`` returns all outputs and the last state."""

    def __init__(self, cell: str, inputs: int, width: int, outputs: int, layers: int = 1):
        super().__init__()
        self.core = getattr(nn, cell.upper())(inputs, width, layers)
        self.read_out = nn.Linear(width, outputs)

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Run over x of shape (steps, batch, inputs); the state has the form that torch gives it."""
        out, state = self.core(x, state)
        return self.read_out(out), state


def interface_for(s: Settings, task: Task) -> RecurrentInterface:
    """The interface between a chunk and the next."""
    m, model = s.model, gradient_model(s, task)
    interface = Interface(model, lam=m.lam, unit_factor=m.unit_factor, target_every=m.target_every)
    return RecurrentInterface(interface, m.scale, m.gamma, m.limit, trust=m.trust, only=visible_leaves(s))


def gradient_model(s: Settings, task: Task) -> nn.Module:
    """The gradient model M, or the auxiliary task's model; its input is the packed state."""
    m, size = s.model, state_size(s)
    if m.form == "regression":
        context = task.inputs if m.context else m.ahead * (task.outputs + 1) if s.method == "cdni" else 0
        model: nn.Module = MLP(size, m.hidden, m.depth, context)
    elif s.method == "cdni":
        model = Critic(target_head(s, task), later_losses(s, task), anchor=m.anchor)
    else:
        model = Critic(_Tanh(size, m.hidden, max(m.depth, 1), 1), lambda out, context: out.sum(1), anchor=0.0)
    return Masked(model, size, m.sees, s.seed) if m.sees < 1 else model


def target_head(s: Settings, task: Task) -> nn.Module:
    """Guesses the targets to come, side by side, from the packed state."""
    return _Tanh(state_size(s), s.model.hidden, s.model.depth, s.model.ahead * task.outputs)


def later_losses(s: Settings, task: Task) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of each example on the targets to come, given a head's guesses; targets weigh as much as in chunks."""

    def losses(guesses: Tensor, coming: Tensor) -> Tensor:
        out, wanted = (t.view(len(t), s.model.ahead, -1).transpose(0, 1) for t in (guesses, coming))
        return (task.losses(out, wanted[..., :-1]) * wanted[..., -1]).sum(0) / s.T

    return losses


def visible_leaves(s: Settings) -> Leaves:
    """Indices of the state's tensors that M sees; None for all."""
    return (0,) if s.model.hidden_only else None


def state_size(s: Settings) -> int:
    """Numbers per example of the packed state."""
    return s.width * s.layers * (2 if s.cell == "lstm" and not s.model.hidden_only else 1)


class _Tanh(nn.Sequential):
    """Layers with tanh, for the gradient of their output is used, too; the output starts at zero."""

    def __init__(self, size: int, hidden: int, depth: int, out: int):
        widths = [size, *[hidden] * depth]
        hidden_layers = [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.Tanh())]
        super().__init__(*hidden_layers, nn.Linear(widths[-1], out))
        nn.init.zeros_(self[-1].weight)  # pyright: ignore[reportArgumentType]
