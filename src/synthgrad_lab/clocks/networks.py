"""The two networks: A sees digits and counts the odd ones; B hears from A and counts the 3s."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthgrad import Tick


class Moment(NamedTuple):
    """What is there at a step: a digit per stream and, where somebody has to answer, the truth."""

    images: Tensor
    """Shape (batch, 784)."""
    phase: int
    """Which of A's T steps this is, from 0."""
    window: int
    """Which of B's T ticks this is part of, from 0."""
    odd: Tensor | None = None
    """At A's last step: how many of its T digits were odd, shape (batch,)."""
    seen: Tensor | None = None
    """At A's last step: how many of its T digits were 3s, shape (batch,)."""
    threes: Tensor | None = None
    """At B's last tick: how many of all T² digits were 3s, shape (batch,)."""


class A(nn.Module):
    """Encoder of two layers, LSTM, an answer and a message every T steps."""

    def __init__(self, T: int, units: int):
        super().__init__()
        self.T = T
        self.encoder = nn.Sequential(*_layer(784, units), *_layer(units, units))
        self.cell = nn.LSTMCell(units + T, units)
        self.answer = nn.Linear(units, T + 1)
        self.message = nn.Sequential(nn.Linear(units, units, bias=False), nn.BatchNorm1d(units))

    def forward(self, inbox: dict[str, list[Tensor]], state: Any, moment: Moment) -> Tick:
        """A tick: one digit."""
        x = _with_phase(self.encoder(moment.images), moment.phase, self.T)
        state = self.cell(x, state)
        if moment.odd is None:
            return Tick(state)
        answer = self.answer(state[0])
        message = self.message(state[0]), moment.seen
        return Tick(state, {"B": message}, F.cross_entropy(answer, moment.odd), answer.detach())


class B(nn.Module):
    """LSTM over A's messages, an answer every T of them."""

    def __init__(self, T: int, units: int):
        super().__init__()
        self.T = T
        self.cell = nn.LSTMCell(units + T, units)
        self.answer = nn.Linear(units, T * T + 1)

    def forward(self, inbox: dict[str, list[Tensor]], state: Any, moment: Moment) -> Tick:
        """A tick: one message."""
        (message,) = inbox["A"]
        state = self.cell(_with_phase(message, moment.window, self.T), state)
        if moment.threes is None:
            return Tick(state)
        answer = self.answer(state[0])
        return Tick(state, loss=F.cross_entropy(answer, moment.threes), out=answer.detach())


def _layer(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU()]


def _with_phase(x: Tensor, phase: int, T: int) -> Tensor:
    """Beside x, which of T ticks this is: whoever counts must know when to begin anew."""
    clock = x.new_zeros(len(x), T)
    clock[:, phase] = 1
    return torch.cat([x, clock], dim=1)
