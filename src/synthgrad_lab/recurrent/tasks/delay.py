"""Repeat the bit of D steps ago; D grows whenever it is solved."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from synthgrad_lab.recurrent.tasks.base import Chunk, Network, Task, bits, held_out

SOLVED, WINDOW = 0.15, 50
"""D is solved below this many bits per step, mean over a window of updates."""
STEPS, STREAMS = 200, 100
"""Size of an evaluation."""


class Delay(Task):
    """y_t = x_{t-D}; one bit in, one logit out; never reset. D begins at ``first``."""

    inputs, outputs = 1, 1
    changing = ("past", "delay", "recent", "solved")

    def __init__(self, T: int, batch: int, seed: int, first: int = 1, grow: bool = True):
        super().__init__(T, batch, seed)
        self.delay, self.grow, self.solved = first, grow, 0
        self.past = bits((first, batch), self.random)
        self.recent: list[float] = []

    def chunk(self) -> Chunk:
        """Bits, and as targets those of D steps before."""
        x = bits((self.T, self.batch), self.random)
        whole = torch.cat([self.past[-self.delay :], x])
        self.past = torch.cat([self.past, x])[-self.delay - 1 :]  # one more, for when D grows
        return Chunk(x[..., None], whole[: self.T], torch.ones(self.T))

    def losses(self, out: Tensor, y: Tensor) -> Tensor:
        """Bits."""
        return F.binary_cross_entropy_with_logits(out.squeeze(-1), y, reduction="none") / math.log(2)

    def update_curriculum(self, loss: float) -> None:
        """Increase D once the mean loss over the window is low."""
        self.recent = [*self.recent, loss][-WINDOW:]
        if len(self.recent) == WINDOW and sum(self.recent) / WINDOW < SOLVED:
            self.solved = self.delay
            if self.grow:
                self.delay, self.recent = self.delay + 1, []

    def evaluate(self, network: Network, test: bool = False) -> dict[str, float]:
        """``longest``: the largest D solved; ``bits``: the error at the current one."""
        x = bits((self.delay + STEPS, STREAMS), held_out(test))
        loss = self.losses(network(x[..., None])[self.delay :], x[: -self.delay])
        return {"longest": self.solved, "bits": loss.mean().item()}

    def show(self) -> str:
        """Bits and their targets."""
        x = [f"{int(bit):2d}" for bit in bits((30,), torch.Generator().manual_seed(0))]
        late = [" ?"] * self.delay + x
        return f"x{''.join(x)}\ny{''.join(late[: len(x)])}   ({self.delay} steps late)"
