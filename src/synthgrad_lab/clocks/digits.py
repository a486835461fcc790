"""Rounds of T² digits, drawn at random with replacement, with the answers to what is asked about them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from synthgrad_lab.clocks.networks import Moment


def moments(x: Tensor, y: Tensor, T: int, batch: int, random: torch.Generator) -> Iterator[Moment]:
    """One round of T² digits: of images x of shape (examples, 1, 28, 28) with labels y, drawn with replacement."""
    drawn = torch.randint(0, len(x), (T, T, batch), generator=random)
    labels = y[drawn]
    odd, seen = (labels % 2 == 1).sum(1), (labels == 3).sum(1)
    for window in range(T):
        for phase in range(T):
            moment = Moment(x[drawn[window, phase]].flatten(1), phase, window)
            if phase == T - 1:
                moment = moment._replace(odd=odd[window], seen=seen[window])
                if window == T - 1:
                    moment = moment._replace(threes=seen.sum(0))
            yield moment
