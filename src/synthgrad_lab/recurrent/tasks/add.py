"""A stream of bits with targets that depend on the bits 6 and 10 steps ago; its lowest losses are known exactly."""

from __future__ import annotations

import math
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from synthgrad_lab.recurrent.tasks.base import Chunk, Network, Task, bits, held_out

LAGS = {6: 0.5, 10: -0.25}
"""P(y_t = 1) = 0.5 + 0.5 x_{t-6} - 0.25 x_{t-10}."""
WARM, STEPS, STREAMS = 50, 400, 100
"""Size of an evaluation: steps before losses count, steps with losses that count, streams."""


def probability(x: Tensor) -> Tensor:
    """P(y = 1) from the tenth step on, for bits of shape (steps, …): shape (steps - 10, …)."""
    deepest = max(LAGS)
    return torch.stack([w * x[deepest - lag : len(x) - lag] for lag, w in LAGS.items()]).sum(0) + 0.5


def floor(*known: int) -> float:
    """The lowest cross-entropy, in nats, that the bits at these lags allow, and no other bits."""
    # P(y = 1), given these bits, is linear in the others, whose mean is a half.
    hidden = 0.5 + sum(weight / 2 for lag, weight in LAGS.items() if lag not in known)
    given = product(*((0, LAGS[lag]) for lag in known))
    ps = [hidden + sum(seen) for seen in given]
    return sum(-sum(q * math.log(q) for q in (p, 1 - p) if q > 0) for p in ps) / len(ps)


class Add(Task):
    """Inputs (x, 1 - x), one logit out; never reset.

    References:
        Pascanu et al.'s kind of addition task; the numbers are the project's own.
    """

    inputs, outputs = 2, 1
    changing = ("past", "drawn")

    def __init__(self, T: int, batch: int, seed: int):
        super().__init__(T, batch, seed)
        # Separate, so that the data does not depend on T.
        self.drawn = torch.Generator().manual_seed(seed + 1_000_000)
        self.past = bits((max(LAGS), batch), self.random)

    def chunk(self) -> Chunk:
        """Bits, and targets drawn from their probabilities."""
        x = bits((self.T, self.batch), self.random)
        whole = torch.cat([self.past, x])
        y = torch.bernoulli(probability(whole), generator=self.drawn)
        self.past = whole[-max(LAGS) :]
        return Chunk(_inputs(x), y, torch.ones(self.T))

    def losses(self, out: Tensor, y: Tensor) -> Tensor:
        """Cross-entropy in nats."""
        return F.binary_cross_entropy_with_logits(out.squeeze(-1), y, reduction="none")

    def evaluate(self, network: Network, test: bool = False) -> dict[str, float]:
        """``cross_entropy`` against the true probability, in nats, and its ``floor``."""
        x = bits((max(LAGS) + WARM + STEPS, STREAMS), held_out(test))
        out = network(_inputs(x))[max(LAGS) + WARM :].squeeze(-1)
        loss = F.binary_cross_entropy_with_logits(out, probability(x)[WARM:])
        return {"cross_entropy": loss.item(), "floor": floor(*LAGS)}

    def show(self) -> str:
        """Bits, and below them the probabilities of their targets."""
        x = bits((30, 1), torch.Generator().manual_seed(0))
        return (
            f"x      {''.join(f'{int(bit):5d}' for bit in x[10:, 0])}\n"
            f"P(y=1) {''.join(f'{p:5.2f}' for p in probability(x)[:, 0])}\n"
            "the target depends on the bits 6 and 10 steps ago; lowest cross-entropy, in nats, given\n"
            f"  no bit {floor():.4f}, the 10th {floor(10):.4f}, the 6th {floor(6):.4f}, both {floor(6, 10):.4f}"
        )


def _inputs(x: Tensor) -> Tensor:
    return torch.stack([x, 1 - x], dim=-1)
