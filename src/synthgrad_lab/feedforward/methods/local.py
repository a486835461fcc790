"""A local loss: each layer learns from a small classifier of its own."""

from __future__ import annotations

from torch import Tensor, nn

from synthgrad_lab.feedforward.methods.base import Losses, Method, criterion
from synthgrad_lab.feedforward.networks import head
from synthgrad_lab.feedforward.precision import prepare
from synthgrad_lab.feedforward.settings import Settings


class LocalLoss(Method):
    """Decoupled greedy learning: no gradient comes down from above. The heads are those of the critics.

    References:
        Belilovsky et al. 2020 (arXiv 1901.08164).
    """

    def __init__(self, s: Settings, parts: list[nn.Module]):
        super().__init__(s, parts)
        self.heads = nn.ModuleList(prepare(head(s, k), s) for k in range(len(parts) - 1))

    def losses(self, x: Tensor, y: Tensor) -> Losses:
        """Each layer's own loss, as soon as the layer has run."""
        h = x
        for k, part in enumerate(self.parts):
            h = part(h.detach())
            yield [k], criterion(self.heads[k](h) if k < len(self.heads) else h, y)

    def extra_parameters(self, k: int) -> list[nn.Parameter]:
        """The layer's own head."""
        return list(self.heads[k].parameters()) if k < len(self.heads) else []
