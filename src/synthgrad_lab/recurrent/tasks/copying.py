"""Copy and Repeat Copy, from the papers on neural Turing machines: output the vectors again, R times."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from synthgrad_lab.recurrent.tasks.base import Episodes, Network, bits, held_out

SOLVED, WINDOW = 0.15, 20
"""A length is solved below this many bits per target bit, mean over a window of batches."""
RIGHT = 0.99
"""Share of right bits that ``accurate`` requires."""
EPISODES = 100
"""Episodes of an evaluation."""


class Copy(Episodes):
    """An episode: a start marker, N random vectors, a request, then N x R steps to output them, an end marker.

    Inputs are the bits, the start marker, and the request (1 for Copy, R/10 for Repeat Copy). Outputs are the bits
    and the end marker. The episode's length is N (R + 1) + 3; every target step counts alike. N begins at ``first``,
    R at 1; with ``repeat`` both grow, in turn. A vector has ``width`` bits.

    References:
        Graves et al. 2014; Graves et al. 2016; Jaderberg et al. 2017, section 3.2.
    """

    changing = (*Episodes.changing, "n", "r", "recent", "solved")

    def __init__(
        self, T: int, batch: int, seed: int, first: int = 1, width: int = 8, repeat: bool = False, grow: bool = True
    ):
        super().__init__(T, batch, seed)
        self.width, self.repeat, self.grow = width, repeat, grow
        self.inputs, self.outputs = width + 2, width + 1
        self.n, self.r = first, 1
        self.solved = [0, 0]
        self.recent: list[float] = []

    def length(self, n: int, r: int) -> int:
        """Steps of an episode."""
        return n * (r + 1) + 3

    def begin(self) -> tuple[Tensor, Tensor, Tensor]:
        """New vectors; the curriculum decides their number."""
        return self._episode(self.n, self.r, self.batch, self.random)

    def losses(self, out: Tensor, y: Tensor) -> Tensor:
        """Bits per target bit; the end marker is one of the target bits."""
        return F.binary_cross_entropy_with_logits(out, y, reduction="none").mean(-1) / math.log(2)

    def update_curriculum(self, loss: float) -> None:
        """Make episodes longer once the mean loss over the window is low."""
        self.recent = [*self.recent, loss][-WINDOW:]
        if len(self.recent) == WINDOW and sum(self.recent) / WINDOW < SOLVED:
            self.solved = [self.n, self.r]
            if self.grow:
                self.recent = []
                if self.repeat and self.n > self.r:
                    self.r += 1
                else:
                    self.n += 1

    def evaluate(self, network: Network, test: bool = False) -> dict[str, float]:
        """``longest``, ``repeats``: N and R solved; ``episode_length`` for both; ``bits`` at the current length.

        ``accurate``: the longest N, from the current one down, at which 99 % of the bits are right.
        """
        n, r = self.solved
        bits_now, _ = self._try(network, self.n, self.r, test)
        accurate = next((m for m in range(self.n, 0, -1) if self._try(network, m, self.r, test)[1] >= RIGHT), 0)
        length = self.length(n, r) if n else 0
        return {"longest": n, "repeats": r, "episode_length": length, "bits": bits_now, "accurate": accurate}

    def _try(self, network: Network, n: int, r: int, test: bool) -> tuple[float, float]:
        x, y, counts = self._episode(n, r, EPISODES, held_out(test))
        out, y = network(x)[counts > 0], y[counts > 0]
        return self.losses(out, y).mean().item(), ((out > 0) == (y > 0)).float().mean().item()

    def _episode(self, n: int, r: int, batch: int, random: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        vectors = bits((n, batch, self.width), random)
        x = torch.zeros(self.length(n, r), batch, self.inputs)
        y = torch.zeros(len(x), batch, self.outputs)
        x[0, :, self.width] = 1
        x[1 : n + 1, :, : self.width] = vectors
        x[n + 1, :, self.width + 1] = r / 10 if self.repeat else 1
        y[n + 2 : -1, :, : self.width] = vectors.repeat(r, 1, 1)
        y[-1, :, self.width] = 1
        counts = torch.zeros(len(x))
        counts[n + 2 :] = 1
        return x, y, counts

    def show(self) -> str:
        """One episode, a column per step."""
        n, r = (3, 2 if self.repeat else 1)
        x, y, counts = self._episode(n, r, 1, torch.Generator().manual_seed(0))
        y[counts == 0] = math.nan
        rows = [f"N = {n}, R = {r}, {len(x)} steps"]
        for values, word, others in ((x, "bit", ["start", "repeat"]), (y, "say", ["end"])):
            names = [*(f"{word} {k}" for k in range(self.width)), *others]
            for name, row in zip(names, values[:, 0].T.tolist(), strict=True):
                rows.append(f"{name:9}" + " ".join("   " if math.isnan(v) else f"{v:3.1g}" for v in row))
            rows.append("")
        return "\n".join(rows[:-1])
