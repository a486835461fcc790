"""The wiring of networks that run at different rates and send each other messages."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from synthgrad.clocks.stream import Connection, Member, Stream
from synthgrad.interface.interface import Interface
from synthgrad.recurrent.recurrent import RecurrentInterface


class Clocks(nn.Module):
    """A system of networks that tick at different rates: a directed graph, which may have cycles.

    Time runs in steps 1, 2, …. At each step the networks whose turn it is tick, in the order in which they were
    added; then the networks whose update is due are updated. A message waits until its receiver's next tick, which
    gets all waiting messages in order: at the same step if the receiver was added after the sender, else later.

    References:
        Jaderberg et al. 2017, the multi-network system.
    """

    def __init__(self) -> None:
        super().__init__()
        self.networks, self.interfaces = nn.ModuleDict(), nn.ModuleDict()
        self.members: dict[str, Member] = {}
        self.connections: dict[tuple[str, str], Connection] = {}

    def add(
        self,
        name: str,
        network: nn.Module,
        every: int = 1,
        update: int = 1,
        optimizer: torch.optim.Optimizer | None = None,
        recurrent: RecurrentInterface | None = None,
    ) -> None:
        """Add a network: a module called as ``network(inbox, state, data)``, which returns a ``Tick``.

        Args:
            name: the network's name in messages and connections.
            network: ``inbox`` has a list of messages for every sender that has sent any; ``state`` is the state of
                its last tick, at first None; ``data`` is the argument of ``Stream.step``.
            every: steps between two ticks: with ``every=4`` it ticks at steps 4, 8, 12, ….
            update: ticks between two updates.
            optimizer: for its parameters, its ``recurrent``, and the interfaces over which it *receives*: M has
                its gradient when the receiver has been differentiated. None: it does not learn, and its parameters'
                gradients are dropped.
            recurrent: predicts the gradient of the losses after an update, at its state; None truncates there.

        Raises:
            ValueError: if the network would never tick or be updated, the name is taken, or the optimizer lacks
                the parameters of ``recurrent``.
        """
        for key, value in (("every", every), ("update", update)):
            if not isinstance(value, int) or value < 1:
                what = "tick" if key == "every" else "be updated"
                raise ValueError(
                    f"{name}: {key}={value}, so it would never {what}; wanted a whole number from 1 up"
                )
        if name in self.members:
            raise ValueError(f"there is a network {name!r} already")
        if not name.isidentifier() or hasattr(self.networks, name):
            raise ValueError(
                f"a network cannot be called {name!r}; wanted an identifier that nn.ModuleDict does not use"
            )
        if recurrent is not None:
            _check_optimizer(name, name, optimizer, recurrent)
        self.networks[name] = network
        self.members[name] = Member(network, every, update, optimizer, recurrent)
        if recurrent is not None:
            self.interfaces[name] = recurrent

    def connect(self, sender: str, receiver: str, interface: Interface | None = None, cut: bool = False) -> None:
        """Connect a sender to a receiver; a second call replaces the first connection.

        Args:
            sender: its name.
            receiver: its name.
            interface: predicts the message's gradient, so that neither network waits for the other's update.
                Without one the true gradient comes back, so both must be updated at the same steps; a message that
                still waits then gets no gradient.
            cut: whether no gradient comes back at all.

        Raises:
            ValueError: if a name is unknown, the clocks do not fit, or the receiver's optimizer lacks the
                interface's parameters.
        """
        for name in (sender, receiver):
            if name not in self.members:
                raise ValueError(f"there is no network {name!r}; there are: {', '.join(self.members) or 'none'}")
        if interface is not None and cut:
            raise ValueError(f"{sender} → {receiver}: a connection has an interface or is cut, not both")
        a, b = self.members[sender], self.members[receiver]
        if interface is None and not cut and a.period != b.period:
            raise ValueError(
                f"{sender} → {receiver}: without an interface both are updated at the same steps, but {sender} is "
                f"every {a.period} and {receiver} every {b.period} steps; give an interface, or cut=True"
            )
        if interface is not None:
            _check_optimizer(sender, receiver, b.optimizer, interface)
            self.interfaces[f"{sender} {receiver}"] = interface
        elif f"{sender} {receiver}" in self.interfaces:  # of the connection that this one replaces
            del self.interfaces[f"{sender} {receiver}"]
        self.connections[sender, receiver] = interface or cut

    def stream(self, steps: int | None = None, on_event: Callable[[int, str, str], None] | None = None) -> Stream:
        """Begin a new stream through the system.

        Args:
            steps: number of steps to come, if known; a network that would never be updated in them is refused.
            on_event: called with the time, a network's name, and ``tick``, ``send RECEIVER`` or ``update``.

        Raises:
            ValueError: if a network would never tick or be updated in ``steps`` steps.
        """
        for name, member in self.members.items():
            if steps is not None and steps < (needed := member.period if member.optimizer else member.every):
                what = "be updated" if member.optimizer else "tick"
                raise ValueError(f"network {name!r} would never {what} in {steps} steps; it takes {needed}")
        return Stream(self, self.members, self.connections, on_event or (lambda time, name, what: None))


def _check_optimizer(
    sender: str, receiver: str, optimizer: torch.optim.Optimizer | None, interface: nn.Module
) -> None:
    """Check that the receiver's optimizer trains the interface's parameters."""
    groups = optimizer.param_groups if optimizer else ()
    trained = {id(parameter) for group in groups for parameter in group["params"]}
    if optimizer is None or any(p.requires_grad and id(p) not in trained for p in interface.parameters()):
        raise ValueError(f"{sender} → {receiver}: the interface's parameters belong in {receiver}'s optimizer")
