"""A stream of bits with targets that depend on the bits 6 and 10 steps ago; its lowest losses are known exactly."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

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
    total = 0.0
    for seen in product((0, 1), repeat=len(known)):
        given = dict(zip(known, seen, strict=True))
        hidden = [lag for lag in LAGS if lag not in given]
        cases = [{**given, **dict(zip(hidden, rest, strict=True))} for rest in product((0, 1), repeat=len(hidden))]
        p = sum(0.5 + sum(LAGS[lag] * case.get(lag, 0) for lag in LAGS) for case in cases) / len(cases)
        total += -sum(q * math.log(q) for q in (p, 1 - p) if q > 0) / 2 ** len(known)
    return total


class Add(Task):
    """Inputs (x, 1 - x), one logit out; never reset.

    References:
        Pascanu et al.'s kind of addition task; the numbers are the project's own.
    """

    inputs, outputs = 2, 1
    changing = ("past",)

    def __init__(self, T: int, batch: int, seed: int):
        super().__init__(T, batch, seed)
        self.drawn = torch.Generator().manual_seed(
            seed + 1_000_000
        )  # separate, so that the data does not depend on T
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

    def state_dict(self) -> dict[str, Any]:
        """Everything that later chunks depend on, with the random state of the targets."""
        return {**super().state_dict(), "drawn": self.drawn.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a ``state_dict``."""
        state = dict(state)
        self.drawn.set_state(state.pop("drawn"))
        super().load_state_dict(state)

    def evaluate(self, network: Network, test: bool = False) -> dict[str, float]:
        """``cross_entropy`` against the true probability, in nats, and its ``floor``."""
        random = held_out(test)
        x = bits((max(LAGS) + WARM + STEPS, STREAMS), random)
        p = probability(x)[WARM:]
        out = network(_inputs(x))[max(LAGS) + WARM :].squeeze(-1)
        loss = F.binary_cross_entropy_with_logits(out, p)
        return {"cross_entropy": loss.item(), "floor": floor(*LAGS)}

    def show(self) -> str:
        """Bits, and below them the probabilities of their targets."""
        x = bits((30, 1), torch.Generator().manual_seed(0))
        p = probability(x)[:, 0]
        rows = [
            "x      " + "".join(f"{int(bit):5d}" for bit in x[10:, 0]),
            "P(y=1) " + "".join(f"{value:5.2f}" for value in p),
            "the target depends on the bits 6 and 10 steps ago; lowest cross-entropy, in nats, given",
            f"  no bit {floor():.4f}, the 10th {floor(10):.4f}, the 6th {floor(6):.4f}, both {floor(6, 10):.4f}",
        ]
        return "\n".join(rows)


def _inputs(x: Tensor) -> Tensor:
    return torch.stack([x, 1 - x], dim=-1)
