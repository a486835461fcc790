"""Networks on clocks of their own, joined by messages: who ticks, sends, receives and is updated when."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import lcm
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from synthgrad.interface import Interface
from synthgrad.recurrent import Recurrent


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
    recurrent: Recurrent | None

    @property
    def period(self) -> int:
        """Steps from one update to the next."""
        return self.every * self.update


class Clocks(nn.Module):
    """A system of networks that tick at different rates: a directed graph, with cycles if you like.

    Time goes in steps 1, 2, …. In each, the networks whose turn it is tick, in the order in which they were
    added; then those are updated that are due. A message waits until its receiver's next tick, which gets all that
    wait, in order: at the same step if the receiver was added after the sender, else at a later one.

    References:
        Jaderberg et al. 2017, the multi-network system.
    """

    def __init__(self) -> None:
        super().__init__()
        self.networks, self.interfaces = nn.ModuleDict(), nn.ModuleDict()
        self.members: dict[str, Member] = {}
        self.edges: dict[tuple[str, str], Interface | bool] = {}  # without an interface: whether it is cut

    def add(
        self,
        name: str,
        network: nn.Module,
        every: int = 1,
        update: int = 1,
        optimizer: torch.optim.Optimizer | None = None,
        recurrent: Recurrent | None = None,
    ) -> None:
        """Add a network: a module called as ``network(inbox, state, data)``, which returns a ``Tick``.

        Args:
            name: what its messages' senders and receivers call it.
            network: ``inbox`` has a list of messages for every sender that has sent any; ``state`` is what its
                last tick returned, at first None; ``data`` is what the stream's step was given.
            every: it ticks at every so many steps, after them: ``every=4`` at steps 4, 8, 12, ….
            update: it is updated after every so many of its ticks.
            optimizer: of its parameters, of its ``recurrent``, and of the interfaces over which it *receives*: M
                has its gradient when the receiver has been differentiated. None: it does not learn.
            recurrent: what stands for the losses after an update, on the way from its state; None truncates there.

        Raises:
            ValueError: for a network that would never tick or be updated, a name that is taken, a ``recurrent``
                whose parameters the optimizer has not.
        """
        for key, value in (("every", every), ("update", update)):
            if value != int(value) or value < 1:
                raise ValueError(f"{name}: {key}={value}, so it would never tick; wanted a whole number from 1 up")
        if name in self.members:
            raise ValueError(f"there is a network {name!r} already")
        if recurrent is not None:
            _owned(name, name, optimizer, recurrent)
        self.networks[name] = network
        self.members[name] = Member(network, every, update, optimizer, recurrent)
        if recurrent is not None:
            self.interfaces[name] = recurrent

    def connect(self, sender: str, receiver: str, interface: Interface | None = None, cut: bool = False) -> None:
        """Let one network send to another.

        Args:
            sender: its name.
            receiver: its name.
            interface: predicts the message's gradient, so that neither waits for the other's update; without one
                the gradient itself comes back, and both must be updated at the same steps.
            cut: no gradient comes back at all.

        Raises:
            ValueError: if a name is unknown, the clocks do not fit, or the receiver's optimizer has not the
                interface's parameters.
        """
        for name in (sender, receiver):
            if name not in self.members:
                raise ValueError(f"there is no network {name!r}; there are: {', '.join(self.members) or 'none'}")
        a, b = self.members[sender], self.members[receiver]
        if interface is None and not cut and a.period != b.period:
            raise ValueError(
                f"{sender} → {receiver}: without an interface both are updated at the same steps, but {sender} is "
                f"every {a.period} and {receiver} every {b.period} steps; give an interface, or cut=True"
            )
        if interface is not None:
            _owned(sender, receiver, b.optimizer, interface)
            self.interfaces[f"{sender} {receiver}"] = interface
        self.edges[sender, receiver] = interface or cut

    def stream(self, steps: int | None = None, heard: Callable[[int, str, str], None] | None = None) -> Stream:
        """A new stream through the system, from its beginning.

        Args:
            steps: how many there will be, if that is known, to refuse a network that would never be updated.
            heard: called with the time, a network's name, and ``tick``, ``send RECEIVER`` or ``update``.
        """
        for name, member in self.members.items():
            if steps is not None and steps < (needed := member.period if member.optimizer else member.every):
                what = "be updated" if member.optimizer else "tick"
                raise ValueError(f"network {name!r} would never {what} in {steps} steps; it takes {needed}")
        return Stream(self, heard or (lambda time, name, what: None))


def _owned(sender: str, receiver: str, optimizer: torch.optim.Optimizer | None, interface: nn.Module) -> None:
    groups = optimizer.param_groups if optimizer else ()
    trained = {id(parameter) for group in groups for parameter in group["params"]}
    if optimizer is None or any(p.requires_grad and id(p) not in trained for p in interface.parameters()):
        raise ValueError(f"{sender} → {receiver}: the interface's parameters belong in {receiver}'s optimizer")


def _detached(tree: Any) -> Any:
    return tree_map(lambda x: x.detach() if isinstance(x, Tensor) else x, tree)


@dataclass
class Stream:
    """Where a system is on its way through a stream."""

    clocks: Clocks
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
        for name, member in self.clocks.members.items():
            if self.time % member.every == 0:
                outs[name] = self._tick(name, member, data)
        self._update(
            [name for name, member in self.clocks.members.items() if self.time % member.period == 0], False
        )
        return outs

    def end(self) -> None:
        """The stream has ended: all learn from what they have got, nothing is sent on, and all start anew."""
        self._update([name for name in self.clocks.members if name in self.begun], True)
        self.time = 0
        self.states, self.waiting = {}, {}

    def _tick(self, name: str, member: Member, data: Any) -> Any:
        self.heard(self.time, name, "tick")
        state = self.states.get(name)
        if name not in self.begun and member.recurrent is not None and self._learning():
            state = member.recurrent.receive(state)
        self.begun.add(name)
        inbox: dict[str, list[Tensor]] = {}
        for (sender, receiver), edge in self.clocks.edges.items():
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
        edge = self.clocks.edges.get((sender, receiver))
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
        members = {name: self.clocks.members[name] for name in due}
        losses = [self.losses.pop(name) for name in due if name in self.losses]
        for name, member in members.items():
            state = self.states.get(name)
            if member.recurrent is not None and not ended and state is not None and self._learning():
                losses.append(member.recurrent.send(state))
        if losses and self._learning():
            torch.autograd.backward(losses)
            for name, member in members.items():
                if member.optimizer is not None:
                    member.optimizer.step()
                    member.optimizer.zero_grad()
                    self.heard(self.time, name, "update")
        for name in due:
            self.begun.discard(name)
            self.states[name] = _detached(self.states.get(name))
        for (sender, _), queue in self.waiting.items():
            if sender in members:
                queue.extend([(h.detach(), context) for h, context in (queue.popleft() for _ in range(len(queue)))])

    def _learning(self) -> bool:
        return torch.is_grad_enabled() and self.clocks.training

    def state_dict(self) -> dict[str, Any]:
        """Where the stream is.

        Raises:
            ValueError: between a network's updates, when what it has yet to learn from cannot be saved.
        """
        if self.begun:
            cycle = lcm(*(member.period for member in self.clocks.members.values()))
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
