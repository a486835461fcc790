"""Networks on clocks of their own, joined by messages: the wiring."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from synthgrad.clocks.stream import Edge, Member, Stream
from synthgrad.interface.interface import Interface
from synthgrad.recurrent.recurrent import RecurrentInterface


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
        self.edges: dict[tuple[str, str], Edge] = {}

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
            name: what its messages' senders and receivers call it.
            network: ``inbox`` has a list of messages for every sender that has sent any; ``state`` is what its
                last tick returned, at first None; ``data`` is what the stream's step was given.
            every: it ticks at every so many steps, after them: ``every=4`` at steps 4, 8, 12, ….
            update: it is updated after every so many of its ticks.
            optimizer: of its parameters, of its ``recurrent``, and of the interfaces over which it *receives*: M
                has its gradient when the receiver has been differentiated. None: it does not learn, and its
                parameters' gradients are dropped.
            recurrent: what stands for the losses after an update, on the way from its state; None truncates there.

        Raises:
            ValueError: for a network that would never tick or be updated, a name that is taken, a ``recurrent``
                whose parameters the optimizer has not.
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
                f"a network cannot be called {name!r}; wanted a name as Python's, not one of its methods"
            )
        if recurrent is not None:
            _owned(name, name, optimizer, recurrent)
        self.networks[name] = network
        self.members[name] = Member(network, every, update, optimizer, recurrent)
        if recurrent is not None:
            self.interfaces[name] = recurrent

    def connect(self, sender: str, receiver: str, interface: Interface | None = None, cut: bool = False) -> None:
        """Let one network send to another; a second call puts another edge in the first one's place.

        Args:
            sender: its name.
            receiver: its name.
            interface: predicts the message's gradient, so that neither waits for the other's update; without one
                the gradient itself comes back, and both must be updated at the same steps; nothing comes back for
                a message that is still waiting then.
            cut: no gradient comes back at all.

        Raises:
            ValueError: if a name is unknown, the clocks do not fit, or the
                receiver's optimizer has not the interface's parameters.
        """
        for name in (sender, receiver):
            if name not in self.members:
                raise ValueError(f"there is no network {name!r}; there are: {', '.join(self.members) or 'none'}")
        if interface is not None and cut:
            raise ValueError(f"{sender} → {receiver}: an edge has an interface or is cut, not both")
        a, b = self.members[sender], self.members[receiver]
        if interface is None and not cut and a.period != b.period:
            raise ValueError(
                f"{sender} → {receiver}: without an interface both are updated at the same steps, but {sender} is "
                f"every {a.period} and {receiver} every {b.period} steps; give an interface, or cut=True"
            )
        if interface is not None:
            _owned(sender, receiver, b.optimizer, interface)
            self.interfaces[f"{sender} {receiver}"] = interface
        elif f"{sender} {receiver}" in self.interfaces:  # of an edge whose place this one takes
            del self.interfaces[f"{sender} {receiver}"]
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
        return Stream(self, self.members, self.edges, heard or (lambda time, name, what: None))


def _owned(sender: str, receiver: str, optimizer: torch.optim.Optimizer | None, interface: nn.Module) -> None:
    groups = optimizer.param_groups if optimizer else ()
    trained = {id(parameter) for group in groups for parameter in group["params"]}
    if optimizer is None or any(p.requires_grad and id(p) not in trained for p in interface.parameters()):
        raise ValueError(f"{sender} → {receiver}: the interface's parameters belong in {receiver}'s optimizer")
