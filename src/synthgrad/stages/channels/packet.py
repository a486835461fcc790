"""What travels between neighbouring stages, and what every channel can do."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol, runtime_checkable

from torch import Tensor


class PacketKind(IntEnum):
    """What a packet is."""

    MESSAGE = 1
    """Upwards: h, and the context (labels) if there is one."""
    GRADIENT = 2
    """Downwards: δ, and where the receiver ran on a synthetic input, that input."""
    HEARTBEAT = 3
    """Either way, without tensors: I am here; so far have I come."""


@dataclass(frozen=True)
class Packet:
    """One packet."""

    kind: PacketKind
    stage: int
    """Who sends it, from 0."""
    generation: int
    """How often the sender has been started; a restart makes older packets void."""
    step: int = -1
    """Of the data that it is about; of a word, the sender's last."""
    echo: int = 0
    """Downwards: the generation of the stage above whose messages this answers, 0 before the first."""
    ack: int = -1
    """Downwards: the last step of those messages that has been taken in."""
    ended: bool = False
    """Whether the sender has made all its steps."""
    tensors: tuple[Tensor, ...] = ()


@runtime_checkable
class Inlet(Protocol):
    """Where packets come in."""

    refused: Counter[str]
    """What was dropped at the door, by reason."""

    def get(self) -> Packet | None:
        """The next packet, or None; never waits."""
        ...


@runtime_checkable
class Outlet(Protocol):
    """Where packets go out, to one neighbour."""

    @property
    def cut(self) -> bool:
        """Whether the neighbour was there, and is gone."""
        ...

    def put(self, packet: Packet) -> bool:
        """Send, if that is possible at once; never waits. Whether it was."""
        ...


@dataclass(frozen=True)
class Links:
    """A stage's ends of its channels; None where it has no neighbour."""

    messages_in: Inlet | None = None
    gradients_out: Outlet | None = None
    messages_out: Outlet | None = None
    gradients_in: Inlet | None = None
