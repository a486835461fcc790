"""Whether a step is finite, and buffers that a bad one must not spoil."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from synthgrad.interface.numbers import finite


def is_finite(t: object) -> bool:
    """Whether nothing in it is inf or NaN; what is no tensor of numbers with a point is."""
    if not isinstance(t, Tensor) or not (t.is_floating_point() or t.is_complex()) or t.numel() == 0:
        return True
    t = t.detach()
    return bool(finite(t if t.element_size() > 1 else t.float()))  # norms know no float8


def are_finite(gradients: Iterable[Tensor]) -> bool:
    """The same of all of them, by their norm."""
    dense = [g.detach() for g in gradients]
    dense = [g.coalesce().values() if g.is_sparse else g for g in dense]
    if not dense:
        return True
    return bool(torch.nn.utils.get_total_norm(dense).isfinite()) or all(map(is_finite, dense))


class Buffers:
    """The last good values of a module's buffers (running means, say): a forward pass writes to them at once."""

    def __init__(self) -> None:
        self.kept: list[tuple[Tensor, int, Tensor]] = []

    def keep(self, module: nn.Module) -> None:
        """Take the values that they have now for good.

        Only what was written to since the last time is copied. A norm's running means are always: torch writes to
        them without a new version.
        """
        before = {id(kept[0]): kept for kept in self.kept}
        self.kept = []
        for owner in module.modules():
            for buffer in owner.buffers(recurse=False):
                kept = before.get(id(buffer))
                if kept is None or kept[1] != buffer._version or isinstance(owner, _NormBase):
                    kept = (buffer, buffer._version, buffer.detach().clone())
                self.kept.append(kept)

    @torch.no_grad()
    def restore(self) -> None:
        """Go back to them."""
        for buffer, _, values in self.kept:
            buffer.copy_(values)
