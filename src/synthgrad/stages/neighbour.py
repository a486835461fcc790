"""Follows a neighbouring stage: whether it is alive, which generation it is, and what it has received."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from synthgrad.stages.channels import Packet
from synthgrad.stages.policy import Policy

_WINDOW = 10
"""Packets over which a neighbour's usual interval is averaged."""


class Neighbour:
    """Follows the packets of one neighbour.

    Args:
        policy: how long it may be silent.
        now: the time.
    """

    def __init__(self, policy: Policy, now: Callable[[], float]):
        self.policy, self.now = policy, now
        self.generation = 0
        self.created = now()
        self.last_heard: float | None = None
        self.usual_interval, self.intervals = 0.0, 0
        """Seconds between two of its packets, a running mean, and how many intervals are in it."""
        self.ended = False
        self.unreceived: deque[int] = deque()
        """Steps of the messages that were sent to it and that it has not received yet."""

    def observe(self, packet: Packet, own_generation: int | None = None) -> bool:
        """Note a packet that came from it.

        Args:
            packet: the packet.
            own_generation: this stage's generation, if the packet's ``ack`` may be about this stage's messages.

        Returns:
            Whether the packet is valid; False if an earlier process of the neighbour sent it.
        """
        if packet.generation < self.generation:
            return False
        now = self.now()
        if packet.generation > self.generation:
            if self.generation or packet.generation > 1:
                self.unreceived.clear()  # they were lost with its earlier process
            self.generation = packet.generation
        elif self.last_heard is not None:
            self.intervals += 1
            interval = now - self.last_heard
            if self.intervals > _WINDOW:  # an outage must not make the next one look usual
                interval = min(interval, max(self.policy.silence_timeout, 3 * self.usual_interval))
            self.usual_interval += (interval - self.usual_interval) / min(self.intervals, _WINDOW)
        self.last_heard, self.ended = now, packet.ended
        if packet.echo == own_generation and packet.ack in self.unreceived:
            while self.unreceived.popleft() != packet.ack:
                pass
        return True

    def has_room(self, queue: int) -> bool:
        """Whether it may be sent one more message."""
        return len(self.unreceived) < queue

    def is_down(self, cut: bool) -> bool:
        """Whether it is dead or hung: its connection is cut, or it has been silent for too long."""
        if self.last_heard is None:
            return self.now() - self.created > self.policy.start_within
        silence = self.now() - self.last_heard
        return silence > max(self.policy.silence_timeout, 5 * self.usual_interval) or (cut and not self.ended)


class ListeningClock:
    """Counts the seconds in which this stage could hear its neighbours.

    A stage that was stopped, asleep or deep in a step did not listen, so its neighbours' silence meanwhile says
    nothing about them. Of the time between two calls, therefore, at most ``most`` seconds count.

    Args:
        most: the most seconds that count between two calls.
    """

    def __init__(self, most: float):
        self.most = most
        self.time, self.last_call = 0.0, time.monotonic()

    def __call__(self) -> float:
        """The time."""
        now = time.monotonic()
        self.time += min(now - self.last_call, self.most)
        self.last_call = now
        return self.time
