"""The schedule: which network ticks, sends and is updated at which step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypedDict

import torch

from synthgrad_lab.clocks.digits import moments
from synthgrad_lab.clocks.networks import two_networks
from synthgrad_lab.clocks.settings import Settings


class TickEvent(TypedDict):
    """At a step (``time``, from 1) a network ticks, sends a message, or is updated."""

    time: int
    network: str
    what: str
    """tick, send RECEIVER, or update."""


def schedule(s: Settings, rounds: int = 2) -> list[TickEvent]:
    """The events of the first rounds, recorded while running them on noise."""
    events: list[TickEvent] = []
    one_round = on_noise(s, lambda time, name, what: events.append({"time": time, "network": name, "what": what}))
    for _ in range(rounds):
        one_round()
    return events


def on_noise(s: Settings, on_event: Callable[[int, str, str], None] | None = None) -> Callable[[], None]:
    """A new system on random images; each call runs one round."""
    stream = two_networks(s)[0].stream(on_event=on_event)
    random = torch.Generator().manual_seed(s.seed)
    x, y = torch.rand(500, 1, 28, 28, generator=random), torch.randint(0, 10, (500,), generator=random)

    def one_round() -> None:
        for moment in moments(x, y, s.T, s.batch, random):
            stream.step(moment)

    return one_round


def as_text(events: Sequence[TickEvent]) -> str:
    """A row per network, a column per step: t ticks, s sends, u is updated."""
    steps = range(1, max(event["time"] for event in events) + 1)
    rows = {"step": [str(time) for time in steps], **{name: [""] * len(steps) for name in "AB"}}
    for event in events:
        rows[event["network"]][event["time"] - 1] += event["what"][0]
    lines = [f"{name:5}" + "".join(f"{cell or '.':>5}" for cell in cells) for name, cells in rows.items()]
    return "\n".join([*lines, "t: ticks   s: sends to the other   u: is updated"])
