"""The packet that neighbouring stages exchange, and the interface of every channel."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol, runtime_checkable

from torch import Tensor


class PacketKind(IntEnum):
    """The kind of a packet."""

    MESSAGE = 1
    """To the stage above: h, and the context (labels) if there is one."""
    GRADIENT = 2
    """To the stage below: δ and, if its sender ran on a synthetic input, that input."""
    HEARTBEAT = 3
    """To either neighbour, without tensors: liveness and progress."""


@dataclass(frozen=True)
class Packet:
    """A message, a gradient or a heartbeat."""

    kind: PacketKind
    stage: int
    """The sender's place, from 0."""
    generation: int
    """How often the sender has been started; after a restart, packets of its earlier processes are void."""
    step: int = -1
    """The step of the data; in a heartbeat, the last step that the sender has made or sent."""
    echo: int = 0
    """To the stage below: the generation of that stage whose messages this answers, 0 before the first."""
    ack: int = -1
    """To the stage below: the last step of those messages that has been received."""
    ended: bool = False
    """Whether the sender has made all its steps."""
    tensors: tuple[Tensor, ...] = ()


@runtime_checkable
class Inlet(Protocol):
    """The receiving end of a channel."""

    refused: Counter[str]
    """Packets that were dropped on arrival, by reason."""

    def get(self) -> Packet | None:
        """The next packet, or None; never waits."""
        ...


@runtime_checkable
class Outlet(Protocol):
    """The sending end of a channel to one neighbour."""

    @property
    def cut(self) -> bool:
        """Whether there was a connection to the neighbour, and it has ended."""
        ...

    def put(self, packet: Packet) -> bool:
        """Send a packet if that is possible at once; never waits. Returns whether it was sent."""
        ...


@dataclass(frozen=True)
class Links:
    """A stage's ends of its channels; None where it has no neighbour."""

    messages_in: Inlet | None = None
    gradients_out: Outlet | None = None
    messages_out: Outlet | None = None
    gradients_in: Inlet | None = None
