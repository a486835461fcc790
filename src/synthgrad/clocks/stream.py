"""A stream through networks on clocks of their own: who ticks, sends, receives and is updated when."""

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

Edge: TypeAlias = Interface | bool
"""How a message's gradient comes back; without an interface, whether the edge is cut."""


class Tick(NamedTuple):
    """What a network gives when it ticks."""

    state: Any = None
    """For its next tick: a tensor, or a tuple, list or dict of tensors."""
    sends: Mapping[str, Any] | None = None
    """Messages by receiver: a tensor, or a pair of it and its context."""
    loss: Tensor | None = None
    """A scalar; its update minimizes the sum of them."""
    out: Any = None
    """For whoever drives the stream."""


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
    """Where a system is on its way through a stream."""

    system: nn.Module
    """All networks and interfaces; in eval mode nothing learns."""
    members: Mapping[str, Member]
    edges: Mapping[tuple[str, str], Edge]
    heard: Callable[[int, str, str], None]
    time: int = 0
    """Steps done."""
    states: dict[str, Any] = field(default_factory=dict)
    waiting: dict[tuple[str, str], deque[Any]] = field(default_factory=dict)
    losses: dict[str, Tensor] = field(default_factory=dict)
    begun: set[str] = field(default_factory=set)
    """Networks that have ticked since their last update."""

    def step(self, data: Any = None) -> dict[str, Any]:
        """One step of time.

        Args:
            data: what every network that ticks may see.

        Returns:
            ``out`` of every network that has ticked.
        """
        self.time += 1
        outs = {}
        for name, member in self.members.items():
            if self.time % member.every == 0:
                outs[name] = self._tick(name, member, data)
        self._update([name for name, member in self.members.items() if self.time % member.period == 0], False)
        return outs

    def end(self) -> None:
        """The stream has ended: all learn from what they have got, nothing is sent on, and all start anew."""
        self._update([name for name in self.members if name in self.begun], True)
        self.time = 0
        self.states, self.waiting = {}, {}

    def _tick(self, name: str, member: Member, data: Any) -> Any:
        self.heard(self.time, name, "tick")
        state = self.states.get(name)
        if name not in self.begun and member.recurrent is not None and self._learning():
            state = member.recurrent.receive(state)
        self.begun.add(name)
        inbox: dict[str, list[Tensor]] = {}
        for (sender, receiver), edge in self.edges.items():
            if receiver == name and (queue := self.waiting.pop((sender, receiver), None)):
                through = edge.receive if isinstance(edge, Interface) else lambda h, context: h
                inbox[sender] = [through(h, context) for h, context in queue]
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
        """Let a message wait for its receiver; the sender's loss term."""
        edge = self.edges.get((sender, receiver))
        if edge is None:
            raise ValueError(f"{sender!r} sends to {receiver!r}, to which it is not connected")
        self.heard(self.time, sender, f"send {receiver}")
        context = _detached(context)
        term = edge.send(h, context) if isinstance(edge, Interface) else None
        queue = self.waiting.setdefault((sender, receiver), deque())
        queue.append((h.detach() if edge else h, context))
        return term

    def _update(self, due: list[str], ended: bool) -> None:
        """Differentiate all that is due at once: networks joined without an interface share a graph."""
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
                    self.heard(self.time, name, "update")
        for name in due:
            self.begun.discard(name)
            self.states[name] = _detached(self.states.get(name))
        for (sender, _), queue in self.waiting.items():
            if sender in members:
                queue.extend([(h.detach(), context) for h, context in (queue.popleft() for _ in range(len(queue)))])

    def _forget(self, member: Member) -> None:
        """Drop the gradients of a network that does not learn, but for what another one's optimizer moves."""
        optimizers = [m.optimizer for m in self.members.values() if m.optimizer is not None]
        moved = {id(p) for o in optimizers for group in o.param_groups for p in group["params"]}
        for parameter in member.network.parameters():
            if id(parameter) not in moved:
                parameter.grad = None

    def _learning(self) -> bool:
        return torch.is_grad_enabled() and self.system.training

    def state_dict(self) -> dict[str, Any]:
        """Where the stream is.

        Raises:
            ValueError: between a network's updates, when what it has yet to learn from cannot be saved.
        """
        if self.begun:
            cycle = lcm(*(member.period for member in self.members.values()))
            raise ValueError(
                f"{', '.join(sorted(self.begun))}: under way; a stream can be saved every {cycle} steps"
            )
        return {
            "time": self.time,
            "states": dict(self.states),
            "waiting": {edge: list(queue) for edge, queue in self.waiting.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a ``state_dict``."""
        self.time, self.states = state["time"], dict(state["states"])
        self.waiting = {edge: deque(queue) for edge, queue in state["waiting"].items()}
        self.losses, self.begun = {}, set()


def _detached(tree: Any) -> Any:
    return tree_map(lambda x: x.detach() if isinstance(x, Tensor) else x, tree)
