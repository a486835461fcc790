"""A channel inside one process, whose lateness and losses are exact and repeatable."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable

import torch

from synthgrad.stages.channels.packet import Packet


class Queue:
    """Both ends in one object: ``put`` at one stage, ``get`` at its neighbour.

    Args:
        now: the time, in ticks.
        lateness: ticks until a packet arrives.
        drop: the probability that a packet with tensors is lost; heartbeats never are.
        random: decides which packets are lost.
    """

    def __init__(
        self,
        now: Callable[[], float],
        lateness: int = 0,
        drop: float = 0.0,
        random: torch.Generator | None = None,
    ):
        self.now, self.lateness, self.drop, self.random = now, lateness, drop, random
        self.under_way: deque[tuple[float, Packet]] = deque()
        self.refused: Counter[str] = Counter()
        self.cut = False

    def put(self, packet: Packet) -> bool:
        """Send a packet, unless the neighbour is dead."""
        if self.cut:
            return False
        if packet.tensors and self.drop and torch.rand((), generator=self.random).item() < self.drop:
            self.refused["lost"] += 1
        else:
            self.under_way.append((self.now() + self.lateness, packet))
        return True

    def get(self) -> Packet | None:
        """The oldest packet, if it has arrived."""
        if not self.under_way or self.under_way[0][0] > self.now():
            return None
        return self.under_way.popleft()[1]

    def clear(self) -> None:
        """Lose all packets under way, as when the receiver dies."""
        self.under_way.clear()
