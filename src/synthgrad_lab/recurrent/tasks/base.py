"""What a task is: chunks to train on, a loss, and its own measure of what has been learnt."""

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
    """T steps (or the fewer that an episode has left) of every stream."""

    x: Tensor
    """Inputs, shape (steps, batch, inputs)."""
    y: Tensor
    """Targets, shape (steps, batch, …)."""
    counts: Tensor
    """Whether a step has a loss, shape (steps,)."""
    ends: bool = False
    """Whether an episode ends with it, in all streams."""
    coming: Tensor | None = None
    """Of an episode: its first targets, each in its place, shape (batch, ahead, outputs + 1): a 1 behind those that
    come after this chunk, zeros for all others."""


class Task:
    """A source of chunks; all that is random comes from ``random``, so that a run can be taken up again.

    Args:
        T: steps of a chunk.
        batch: streams.
        seed: of the data.
    """

    inputs: int
    """Numbers per step that the core sees."""
    outputs: int
    """Numbers per step that the read-out gives."""
    episodic = False
    """Whether there are episodes, with an end."""
    measure: str
    """The key of ``evaluate``'s result that tells how well it goes."""

    def __init__(self, T: int, batch: int, seed: int):
        self.T, self.batch = T, batch
        self.random = torch.Generator().manual_seed(seed)
        self.heard: list[Any] = [0.0, 0]
        self.sequences = batch
        """Streams or episodes begun so far."""

    def chunk(self) -> Chunk:
        """The next T steps."""
        raise NotImplementedError

    def losses(self, out: Tensor, y: Tensor) -> Tensor:
        """The loss of every step and stream, shape (steps, batch), in the unit that is trained on."""
        raise NotImplementedError

    def told(self, total: float, counted: int, ends: bool) -> None:
        """Hears a chunk's loss, summed over as many steps as have one."""
        self.heard = [self.heard[0] + total, self.heard[1] + counted]
        if ends or not self.episodic:
            self.learnt(self.heard[0] / max(self.heard[1], 1))
            self.heard = [0.0, 0]

    def learnt(self, loss: float) -> None:
        """What a curriculum goes by: the loss per step of an episode, or of a stream's chunk."""

    def evaluate(self, network: Network, test: bool = False) -> dict[str, float]:
        """The task's own measures on validation data, or on test data that nothing else looks at."""
        raise NotImplementedError

    def show(self) -> str:
        """An example, for a person."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """All that the next chunks depend on: the random state, and every attribute that changes."""
        kept = {name: getattr(self, name) for name in ("sequences", "heard", *self.changing)}
        return {**kept, "random": self.random.get_state()}

    changing: tuple[str, ...] = ()
    """Names of the attributes that chunks depend on."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a ``state_dict``."""
        state = dict(state)
        self.random.set_state(state.pop("random"))
        for name, value in state.items():
            setattr(self, name, value)


class Episodes(Task):
    """A task of episodes, all of which begin and end together; the last chunk has what is left."""

    episodic = True
    ahead = 0
    """Of how many targets a chunk tells those to come."""

    def __init__(self, T: int, batch: int, seed: int):
        super().__init__(T, batch, seed)
        self.sequences, self.at = 0, 0
        self.episode: tuple[Tensor, ...] = ()

    def begin(self) -> tuple[Tensor, Tensor, Tensor]:
        """A new episode's inputs, targets of shape (steps, batch, outputs), and counts: a chunk's, whole."""
        raise NotImplementedError

    def chunk(self) -> Chunk:
        """The episode's next T steps, or a new episode's first."""
        if not self.episode:
            self.episode, self.at = self.begin(), 0
            self.sequences += self.batch
        x, y, counts = (whole[self.at : self.at + self.T] for whole in self.episode)
        self.at += self.T
        coming = self._coming() if self.ahead else None
        ends = self.at >= len(self.episode[0])
        if ends:
            self.episode = ()
        return Chunk(x, y, counts, ends, coming)

    def _coming(self) -> Tensor:
        _, y, counts = self.episode
        targets = F.pad(y[counts > 0][: self.ahead], (0, 1), value=1.0)
        targets[: int((counts[: self.at] > 0).sum())] = 0
        return F.pad(targets, (0, 0, 0, 0, 0, self.ahead - len(targets))).transpose(0, 1)


def held_out(test: bool) -> torch.Generator:
    """Draws validation data, or test data, that no seed of a run draws."""
    return torch.Generator().manual_seed(10_000_001 if test else 10_000_000)


def bits(shape: tuple[int, ...], random: torch.Generator) -> Tensor:
    """Fair bits, as numbers."""
    return torch.randint(0, 2, shape, generator=random).float()
