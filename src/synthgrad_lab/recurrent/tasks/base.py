"""The base of all tasks: chunks to train on, a loss, and the task's own measures of success."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Network = Callable[[Tensor], Tensor]
"""Runs the trained network over whole sequences from its first state: (steps, batch, inputs) to (…, outputs)."""


@dataclass(frozen=True)
class Chunk:
    """T steps of every stream, or fewer at the end of an episode."""

    x: Tensor
    """Inputs, shape (steps, batch, inputs)."""
    y: Tensor
    """Targets, shape (steps, batch, …)."""
    counts: Tensor
    """Whether a step has a loss, shape (steps,)."""
    ends: bool = False
    """Whether an episode ends with it, in all streams."""
    coming: Tensor | None = None
    """An episode's first targets, each in its place, shape (batch, ahead, outputs + 1): those that come after this
    chunk with a 1 in the last column, zeros in the place of all others."""


class Task:
    """A source of chunks of T steps; its generators are part of its state, so that a run can be resumed."""

    inputs: int
    """Numbers per step that the core sees."""
    outputs: int
    """Numbers per step that the read-out returns."""
    episodic = False
    """Whether the data comes in episodes, which end."""
    changing: tuple[str, ...] = ()
    """Names of a task's own attributes that chunks depend on."""

    def __init__(self, T: int, batch: int, seed: int):
        self.T, self.batch = T, batch
        self.random = torch.Generator().manual_seed(seed)
        self.running_loss: list[Any] = [0.0, 0]
        """Sum of the losses since the curriculum saw the last one, and the number of steps that they are from."""
        self.sequences = batch
        """Streams or episodes begun so far."""

    def chunk(self) -> Chunk:
        """The next T steps."""
        raise NotImplementedError

    def losses(self, out: Tensor, y: Tensor) -> Tensor:
        """The loss of every step and stream, shape (steps, batch), in the unit that is trained on."""
        raise NotImplementedError

    def observe_loss(self, total: float, counted: int, ends: bool) -> None:
        """Take note of a chunk's loss, summed over the ``counted`` steps that have one, for the curriculum."""
        self.running_loss = [self.running_loss[0] + total, self.running_loss[1] + counted]
        if ends or not self.episodic:
            self.update_curriculum(self.running_loss[0] / max(self.running_loss[1], 1))
            self.running_loss = [0.0, 0]

    def update_curriculum(self, loss: float) -> None:
        """Make the task longer, if it grows, once losses (mean per step of an episode or a chunk) are low."""

    def evaluate(self, network: Network, test: bool = False) -> dict[str, float]:
        """The task's own measures on validation data, or on test data, which is used for nothing else."""
        raise NotImplementedError

    def show(self) -> str:
        """An example for people to read."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Everything that later chunks depend on: random states, and every attribute that changes."""
        kept = {name: getattr(self, name) for name in ("random", "sequences", "running_loss", *self.changing)}
        return {k: v.get_state() if isinstance(v, torch.Generator) else v for k, v in kept.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a ``state_dict``."""
        for name, value in state.items():
            if isinstance(generator := getattr(self, name), torch.Generator):
                generator.set_state(value)
            else:
                setattr(self, name, value)


class Episodes(Task):
    """A task of episodes, all of which begin and end together; the last chunk may be shorter than T."""

    episodic = True
    changing = ("episode", "at")
    ahead = 0
    """Number of an episode's targets that chunks show while they are still to come."""

    def __init__(self, T: int, batch: int, seed: int):
        super().__init__(T, batch, seed)
        self.sequences, self.at = 0, 0
        self.episode: tuple[Tensor, ...] = ()

    def begin(self) -> tuple[Tensor, Tensor, Tensor]:
        """A new episode: a whole chunk's inputs, targets of shape (steps, batch, outputs), and counts."""
        raise NotImplementedError

    def chunk(self) -> Chunk:
        """The episode's next T steps, or the first of a new episode."""
        if not self.episode:
            self.episode, self.at = self.begin(), 0
            self.sequences += self.batch
        x, y, counts = (whole[self.at : self.at + self.T] for whole in self.episode)
        self.at += self.T
        coming = self._coming() if self.ahead else None
        if ends := self.at >= len(self.episode[0]):
            self.episode = ()
        return Chunk(x, y, counts, ends, coming)

    def _coming(self) -> Tensor:
        _, y, counts = self.episode
        targets = F.pad(y[counts > 0][: self.ahead], (0, 1), value=1.0)
        targets[: int((counts[: self.at] > 0).sum())] = 0
        return F.pad(targets, (0, 0, 0, 0, 0, self.ahead - len(targets))).transpose(0, 1)


def held_out(test: bool) -> torch.Generator:
    """Draws validation or test data, with a seed that no run uses."""
    return torch.Generator().manual_seed(10_000_001 if test else 10_000_000)


def bits(shape: tuple[int, ...], random: torch.Generator) -> Tensor:
    """Fair bits, as numbers."""
    return torch.randint(0, 2, shape, generator=random).float()
