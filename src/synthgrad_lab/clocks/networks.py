"""The two networks (A sees digits and counts the odd ones, B counts the 3s from A's messages) and their digits."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthgrad import Clocks, Interface, RecurrentInterface, Tick
from synthgrad.models import MLP
from synthgrad_lab.clocks.settings import Settings
from synthgrad_lab.running.optimizers import adam


class Moment(NamedTuple):
    """The data of a step: a digit per stream and, where a network must answer, the right answer, shape (batch,)."""

    images: Tensor
    """Shape (batch, 784)."""
    phase: int
    """Which of A's T steps this is, from 0."""
    window: int
    """Which of B's T ticks this is part of, from 0."""
    odd: Tensor | None = None
    """At A's last step: the number of odd ones among its T digits."""
    seen: Tensor | None = None
    """At A's last step: the number of 3s among its T digits."""
    threes: Tensor | None = None
    """At B's last tick: the number of 3s among all T² digits."""


class A(nn.Module):
    """Encoder of two layers, LSTM, an answer and a message every T steps."""

    def __init__(self, T: int, width: int):
        super().__init__()
        self.T = T
        self.encoder = nn.Sequential(*_layer(784, width), *_layer(width, width))
        self.cell = nn.LSTMCell(width + T, width)
        self.answer = nn.Linear(width, T + 1)
        self.message = nn.Sequential(nn.Linear(width, width, bias=False), nn.BatchNorm1d(width))

    def forward(self, inbox: dict[str, list[Tensor]], state: Any, moment: Moment) -> Tick:
        """A tick: one digit."""
        x = _with_phase(self.encoder(moment.images), moment.phase, self.T)
        state = self.cell(x, state)
        if moment.odd is None:
            return Tick(state)
        answer, message = self.answer(state[0]), self.message(state[0])
        return Tick(state, {"B": (message, moment.seen)}, F.cross_entropy(answer, moment.odd), answer.detach())


class B(nn.Module):
    """LSTM over A's messages, an answer every T of them."""

    def __init__(self, T: int, width: int):
        super().__init__()
        self.T = T
        self.cell = nn.LSTMCell(width + T, width)
        self.answer = nn.Linear(width, T * T + 1)

    def forward(self, inbox: dict[str, list[Tensor]], state: Any, moment: Moment) -> Tick:
        """A tick: one message."""
        (message,) = inbox["A"]
        state = self.cell(_with_phase(message, moment.window, self.T), state)
        if moment.threes is None:
            return Tick(state)
        answer = self.answer(state[0])
        return Tick(state, loss=F.cross_entropy(answer, moment.threes), out=answer.detach())


def two_networks(s: Settings) -> tuple[Clocks, list[torch.optim.Adam]]:
    """The two networks as the method joins them; A's and B's optimizers."""
    a, b = A(s.T, s.width).to(s.run.device), B(s.T, s.width).to(s.run.device)

    def interface(features: int, context: int = 0, scale: float = 1.0) -> Interface:
        model = MLP(features, s.model.hidden, 1, context)
        return Interface(model, unit_factor=s.model.unit_factor, scale=scale).to(s.run.device)

    context = s.T + 1 if s.method == "cdni" else 0
    message = interface(s.width, context, s.model.scale) if s.method in ("dni", "cdni") else None
    found, optimizers = Clocks(), []
    updates_of_a = s.T**2 if s.method == "bprop" else s.T
    for name, net, every, update, model in (("A", a, 1, updates_of_a, None), ("B", b, s.T, s.T, message)):
        recurrent = RecurrentInterface(interface(2 * s.width)) if s.recurrent == "dni" else None
        models = [p for m in (recurrent, model) if m is not None for p in m.parameters()]
        optimizers.append(adam(list(net.parameters()), models, s))
        found.add(name, net, every, update, optimizers[-1], recurrent)
    found.connect("A", "B", message, cut=s.method == "cut")
    return found, optimizers


def _layer(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU()]


def _with_phase(x: Tensor, phase: int, T: int) -> Tensor:
    """Append the number of the tick (of T), one-hot, so that a network knows when to start counting from zero."""
    clock = x.new_zeros(len(x), T)
    clock[:, phase] = 1
    return torch.cat([x, clock], dim=1)
