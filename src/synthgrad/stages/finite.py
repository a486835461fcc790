"""Checks that tensors are finite, and buffers that a bad step must not spoil."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from synthgrad.interface.numbers import finite


def is_finite(t: object) -> bool:
    """Whether it has no inf and no NaN; anything but a tensor of floating-point or complex numbers has none."""
    if not isinstance(t, Tensor) or not (t.is_floating_point() or t.is_complex()) or t.numel() == 0:
        return True
    t = t.detach()
    return bool(finite(t if t.element_size() > 1 else t.float()))  # torch has no norm of float8


def are_finite(gradients: Iterable[Tensor]) -> bool:
    """Whether all of them are finite; one norm is enough where it does not overflow."""
    dense = [g.detach() for g in gradients]
    dense = [g.coalesce().values() if g.is_sparse else g for g in dense]
    if not dense:
        return True
    return bool(torch.nn.utils.get_total_norm(dense).isfinite()) or all(map(is_finite, dense))


class Buffers:
    """Keeps the last good values of a module's buffers (running means, say), which a forward pass overwrites."""

    def __init__(self) -> None:
        self.kept: list[tuple[Tensor, int, Tensor]] = []

    def keep(self, module: nn.Module) -> None:
        """Keep the buffers' present values.

        Only buffers that were written to since the last call are copied. Those of norms are always copied: torch
        writes to them without a new version.
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
        """Give the buffers their kept values."""
        for buffer, _, values in self.kept:
            buffer.copy_(values)
