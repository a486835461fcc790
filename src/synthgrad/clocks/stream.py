"""A stream through networks that run at different rates: it decides who ticks, sends, receives and learns when."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import lcm
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from synthgrad.interface.interface import Interface
from synthgrad.recurrent.recurrent import RecurrentInterface

Connection: TypeAlias = Interface | bool
"""The way back for a message's gradient: an interface, or without one, whether the connection is cut."""


class Tick(NamedTuple):
    """The result of one tick of a network."""

    state: Any = None
    """For its next tick: a tensor, or a tuple, list or dict of tensors."""
    sends: Mapping[str, Any] | None = None
    """Messages by receiver: a tensor, or a pair of it and its context."""
    loss: Tensor | None = None
    """A scalar; each update minimizes the sum of them since the last one."""
    out: Any = None
    """Returned by ``Stream.step``."""


@dataclass(frozen=True)
class Member:
    """A network of a system, and its clock."""

    network: nn.Module
    every: int
    update: int
    optimizer: torch.optim.Optimizer | None
    recurrent: RecurrentInterface | None

    @property
    def period(self) -> int:
        """Steps from one update to the next."""
        return self.every * self.update


@dataclass
class Stream:
    """One run of a system through a stream of data: its time, the networks' states, the messages under way."""

    system: nn.Module
    """All networks and interfaces; in eval mode nothing learns."""
    members: Mapping[str, Member]
    connections: Mapping[tuple[str, str], Connection]
    on_event: Callable[[int, str, str], None]
    time: int = 0
    """Steps done."""
    states: dict[str, Any] = field(default_factory=dict)
    waiting: dict[tuple[str, str], deque[Any]] = field(default_factory=dict)
    losses: dict[str, Tensor] = field(default_factory=dict)
    ticked: set[str] = field(default_factory=set)
    """Networks that have ticked since their last update."""

    def step(self, data: Any = None) -> dict[str, Any]:
        """Run one step of time.

        Args:
            data: passed to every network that ticks.

        Returns:
            ``out`` of every network that has ticked, by name.
        """
        self.time += 1
        outs = {}
        for name, member in self.members.items():
            if self.time % member.every == 0:
                outs[name] = self._tick(name, member, data)
        self._update([name for name, member in self.members.items() if self.time % member.period == 0], False)
        return outs

    def end(self) -> None:
        """End the stream: networks learn from their losses so far, nothing is sent, and all state is reset."""
        self._update([name for name in self.members if name in self.ticked], True)
        self.time = 0
        self.states, self.waiting = {}, {}

    def _tick(self, name: str, member: Member, data: Any) -> Any:
        self.on_event(self.time, name, "tick")
        state = self.states.get(name)
        if name not in self.ticked and member.recurrent is not None and self._learning():
            state = member.recurrent.receive(state)
        self.ticked.add(name)
        inbox: dict[str, list[Tensor]] = {}
        for (sender, receiver), connection in self.connections.items():
            if receiver == name and (queue := self.waiting.pop((sender, receiver), None)):
                receive = connection.receive if isinstance(connection, Interface) else lambda h, context: h
                inbox[sender] = [receive(h, context) for h, context in queue]
        tick = member.network(inbox, state, data)
        loss = tick.loss
        for receiver, sent in (tick.sends or {}).items():
            h, context = sent if isinstance(sent, tuple) else (sent, None)
            term = self._send(name, receiver, h, context)
            loss = term if loss is None else loss if term is None else loss + term
        if loss is not None and loss.requires_grad:  # without an optimizer, too: its senders may learn from it
            self.losses[name] = self.losses[name] + loss if name in self.losses else loss
        self.states[name] = tick.state
        return tick.out

    def _send(self, sender: str, receiver: str, h: Tensor, context: Any) -> Tensor | None:
        """Queue a message for its receiver; return the sender's loss term, if there is one."""
        connection = self.connections.get((sender, receiver))
        if connection is None:
            raise ValueError(f"{sender!r} sends to {receiver!r}, to which it is not connected")
        self.on_event(self.time, sender, f"send {receiver}")
        context = _detached(context)
        term = connection.send(h, context) if isinstance(connection, Interface) else None
        queue = self.waiting.setdefault((sender, receiver), deque())
        queue.append((h.detach() if connection else h, context))
        return term

    def _update(self, due: list[str], ended: bool) -> None:
        """Update networks by one backward pass: those joined without an interface share a graph."""
        members = {name: self.members[name] for name in due}
        losses = [self.losses.pop(name) for name in due if name in self.losses]
        for name, member in members.items():
            state = self.states.get(name)
            if member.recurrent is not None and not ended and state is not None and self._learning():
                losses.append(member.recurrent.send(state))
        if losses and self._learning():
            torch.autograd.backward(losses)
            for name, member in members.items():
                if member.optimizer is None:
                    self._forget(member)
                else:
                    member.optimizer.step()
                    member.optimizer.zero_grad()
                    self.on_event(self.time, name, "update")
        for name in due:
            self.ticked.discard(name)
            self.states[name] = _detached(self.states.get(name))
        for (sender, _), queue in self.waiting.items():
            if sender in members:
                queue.extend([(h.detach(), context) for h, context in (queue.popleft() for _ in range(len(queue)))])

    def _forget(self, member: Member) -> None:
        """Drop the gradients of a network without an optimizer, except those that another one's optimizer uses."""
        optimizers = [m.optimizer for m in self.members.values() if m.optimizer is not None]
        moved = {id(p) for o in optimizers for group in o.param_groups for p in group["params"]}
        for parameter in member.network.parameters():
            if id(parameter) not in moved:
                parameter.grad = None

    def _learning(self) -> bool:
        return torch.is_grad_enabled() and self.system.training

    def state_dict(self) -> dict[str, Any]:
        """The time, the networks' states and the waiting messages.

        Raises:
            ValueError: between a network's updates, since the graphs it has yet to learn from cannot be saved.
        """
        if self.ticked:
            cycle = lcm(*(member.period for member in self.members.values()))
            raise ValueError(
                f"{', '.join(sorted(self.ticked))}: between updates; a stream can be saved every {cycle} steps"
            )
        return {
            "time": self.time,
            "states": dict(self.states),
            "waiting": {key: list(queue) for key, queue in self.waiting.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a ``state_dict``."""
        self.time, self.states = state["time"], dict(state["states"])
        self.waiting = {key: deque(queue) for key, queue in state["waiting"].items()}
        self.losses, self.ticked = {}, set()


def _detached(tree: Any) -> Any:
    return tree_map(lambda x: x.detach() if isinstance(x, Tensor) else x, tree)
