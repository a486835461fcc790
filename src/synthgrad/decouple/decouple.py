"""Decouple any network at named modules; it keeps its class, its code and its state_dict."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from synthgrad.interface.interface import Interface
from synthgrad.interface.message import GradientModel
from synthgrad.quality import Quality, probe


class Cut(nn.Module):
    """The interfaces that ``decouple`` has put into a network, with their parameters, state and context."""

    def __init__(self, net: nn.Module, interfaces: Mapping[str, Interface]):
        super().__init__()
        self._net = (net,)  # in a tuple, so that the net is not registered as a child
        self._names = tuple(interfaces)
        # nn.Module forbids dots in names, and the state's keys must be the same after a restart.
        self.interfaces = nn.ModuleDict({_key(name): interface for name, interface in interfaces.items()})
        self._context: Any = None
        modules = dict(net.named_modules())
        self._hooks = [modules[name].register_forward_hook(_Hook(self, name)) for name in interfaces]

    def __getitem__(self, name: str) -> Interface:
        """The interface on the output of the named module."""
        return self.interfaces[_key(name)]  # pyright: ignore[reportReturnType]

    @contextmanager
    def context(self, context: Any) -> Iterator[None]:
        """Set the gradient models' context within a block; it is restored at the end, also after an exception.

        Under activation checkpointing keep ``backward()`` inside the block: it runs the forward pass again.
        """
        before, self._context = self._context, context
        try:
            yield
        finally:
            self._context = before

    def quality(self, loss: Callable[[], Tensor]) -> dict[str, Quality]:
        """Compare each synthetic gradient with the true one; ``loss`` runs the network and returns its loss."""
        return probe({name: self[name] for name in self._names}, loss, self._net[0])

    def remove(self) -> None:
        """Remove the interfaces; the network is then as it was before ``decouple``."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []


class _Hook:
    """Runs the interface after a module's forward pass; a class, so that the net can be copied and pickled."""

    def __init__(self, cut: Cut, name: str):
        self.cut, self.name = cut, name

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> Tensor | None:
        if not isinstance(output, Tensor):
            raise TypeError(
                f"module {self.name!r} ({type(module).__name__}) returns {type(output).__name__}, and an interface "
                "carries one tensor: cut where one is returned, or call the interface on that tensor yourself"
            )
        # The mode of the whole net decides, not that of the module: a frozen batch norm may stay in eval. The
        # interfaces are no children of the net, so net.train() and net.eval() do not reach them.
        interface, training = self.cut[self.name], self.cut._net[0].training
        if interface.training != training:
            interface.train(training)
        return interface(output, self.cut._context) if training else None


def decouple(net: nn.Module, interfaces: Mapping[str, Interface | GradientModel]) -> Cut:
    """Put an interface on the output of each named module of a network, through forward hooks.

    This decouples the gradients only: one ``loss.backward()`` still runs all parts. For updates that do not wait,
    run the parts through ``unlocked``. The net keeps its class and ``state_dict``.

    Args:
        net: any module.
        interfaces: ``{module name: interface}``, names as in ``net.named_modules()``; a bare gradient
            model becomes ``Interface(model)``.

    Returns:
        A ``Cut``, whose ``parameters()`` belong in an optimizer.

    Raises:
        KeyError: if no module has a name; the message lists the nearest ones.
        ValueError: if a module is cut already.
        TypeError: in the forward pass, if a module's output is not one tensor.

    Example:
        >>> cut = decouple(net, {"layers.0": Linear(256, context=10)})
        >>> with cut.context(y):
        ...     criterion(net(x), y).backward()
    """
    modules = {name: module for name, module in net.named_modules() if name}
    names = list(modules)
    for name in interfaces:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=3, cutoff=0.3) or names[:5]
            raise KeyError(f"no module is named {name!r} in {type(net).__name__}; the nearest: {', '.join(near)}")
        if any(isinstance(hook, _Hook) for hook in modules[name]._forward_hooks.values()):
            raise ValueError(f"{name!r} is cut already; remove() that cut first")
    return Cut(net, {n: i if isinstance(i, Interface) else Interface(i) for n, i in interfaces.items()})


def _key(name: str) -> str:
    key = name.replace(".", "/")
    # ModuleDict refuses the names of its own methods, such as "values", a common name in attention.
    return f"{key}/" if hasattr(nn.ModuleDict, key) else key
