"""What predicts at a chunk's end: gradient models, and heads that guess the targets to come."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from torch import Tensor, nn

from synthgrad import Critic, Interface, RecurrentInterface
from synthgrad.models import MLP, Masked
from synthgrad.recurrent.state import Leaves
from synthgrad_lab.recurrent.settings import Settings
from synthgrad_lab.recurrent.tasks.base import Task


def future(s: Settings, task: Task) -> RecurrentInterface:
    """The interface between a chunk and the next."""
    interface = Interface(
        model(s, task), lam=s.model.lam, unit_factor=s.model.unit_factor, target_every=s.model.target_every
    )
    return RecurrentInterface(
        interface, s.model.scale, s.model.gamma, s.model.limit, trust=s.model.trust, only=told(s)
    )


def model(s: Settings, task: Task) -> nn.Module:
    """M, or the auxiliary A: of the packed state."""
    size = state_size(s)
    if s.model.form == "regression":
        context = (
            task.inputs if s.model.context else s.model.ahead * (task.outputs + 1) if s.method == "cdni" else 0
        )
        found: nn.Module = MLP(size, s.model.hidden, s.model.depth, context)
    elif s.method == "cdni":
        found = Critic(head(s, task), later_losses(s, task), anchor=s.model.anchor)
    else:
        found = Critic(_Tanh(size, s.model.hidden, max(s.model.depth, 1), 1), lambda out, c: out.sum(1), anchor=0.0)
    return Masked(found, size, s.model.sees, s.seed) if s.model.sees < 1 else found


def head(s: Settings, task: Task) -> nn.Module:
    """Guesses the targets to come from the packed state, side by side."""
    return _Tanh(state_size(s), s.model.hidden, s.model.depth, s.model.ahead * task.outputs)


def later_losses(s: Settings, task: Task) -> Callable[[Tensor, Tensor], Tensor]:
    """What each example would lose on the targets to come with a head's guesses, weighed as chunks weigh them."""

    def losses(guesses: Tensor, coming: Tensor) -> Tensor:
        out, wanted = (t.view(len(t), s.model.ahead, -1).transpose(0, 1) for t in (guesses, coming))
        return (task.losses(out, wanted[..., :-1]) * wanted[..., -1]).sum(0) / s.T

    return losses


def told(s: Settings) -> Leaves:
    """Which of the state's tensors are seen."""
    return (0,) if s.model.hidden_only else None


def state_size(s: Settings) -> int:
    """Numbers per example of the packed state."""
    return s.width * s.layers * (2 if s.cell == "lstm" and not s.model.hidden_only else 1)


class _Tanh(nn.Sequential):
    """A guess that is smooth in the state, for its gradient is used; it starts at zero."""

    def __init__(self, size: int, hidden: int, depth: int, out: int):
        widths = [size, *[hidden] * depth]
        hidden_layers = [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.Tanh())]
        super().__init__(*hidden_layers, nn.Linear(widths[-1], out))
        nn.init.zeros_(self[-1].weight)  # pyright: ignore[reportArgumentType]
