"""What a stage knows of a neighbour: whether it is there, in which life, and how far it has come."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from synthgrad.stages.channels import Packet
from synthgrad.stages.policy import Policy

_LEARNT = 10
"""Packets after which it is known how often a neighbour speaks."""


class Neighbour:
    """Follows the packets of one neighbour.

    Args:
        policy: how long silence is borne.
        now: the time.
    """

    def __init__(self, policy: Policy, now: Callable[[], float]):
        self.policy, self.now = policy, now
        self.generation = 0
        self.last: float | None = None
        self.usual, self.packets = 0.0, 0
        """Time between two of its packets, a running mean, and how many have come."""
        self.ended = False
        self.under_way: deque[int] = deque()
        """Steps of the messages that it has been sent and not yet taken in."""
        self.began = now()

    def heard(self, packet: Packet, mine: int | None = None) -> bool:
        """Take in a packet; False if it is of an earlier life, and void.

        Args:
            packet: what came.
            mine: this stage's own generation, if the packet's ``ack`` may be about its messages.
        """
        if packet.generation < self.generation:
            return False
        now = self.now()
        if packet.generation > self.generation:
            if self.generation or packet.generation > 1:
                self.under_way.clear()  # what it had not taken in died with it
            self.generation = packet.generation
        elif self.last is not None:
            self.packets += 1
            interval = now - self.last
            if self.packets > _LEARNT:  # an outage must not make the next one look usual
                interval = min(interval, max(self.policy.silence_timeout, 3 * self.usual))
            self.usual += (interval - self.usual) / min(self.packets, _LEARNT)
        self.last, self.ended = now, packet.ended
        if packet.echo == mine and packet.ack in self.under_way:
            while self.under_way.popleft() != packet.ack:
                pass
        return True

    def room(self, queue: int) -> bool:
        """Whether it may be sent one more message before it has taken in the others."""
        return len(self.under_way) < queue

    def out(self, cut: bool) -> bool:
        """Whether it is dead or hung: its connection is cut, or it is silent too long."""
        if self.last is None:
            return self.now() - self.began > self.policy.start_within
        silent = self.now() - self.last
        return silent > max(self.policy.silence_timeout, 5 * self.usual) or (cut and not self.ended)
