"""Cut any network by the names of its modules; it keeps its class, its code and its state_dict."""

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
    """The interfaces that ``decouple`` put into a network: their parameters, state, context and removal."""

    def __init__(self, net: nn.Module, interfaces: Mapping[str, Interface]):
        super().__init__()
        self._net = (net,)  # in a tuple: the net is not ours to register
        self._names = tuple(interfaces)
        # nn.Module forbids dots in names, and state must be keyed by what survives a restart.
        self.interfaces = nn.ModuleDict({_key(name): interface for name, interface in interfaces.items()})
        self._context: Any = None
        modules = dict(net.named_modules())
        self._hooks = [modules[name].register_forward_hook(_Hook(self, name)) for name in interfaces]

    def __getitem__(self, name: str) -> Interface:
        """The interface behind the module of that name."""
        return self.interfaces[_key(name)]  # pyright: ignore[reportReturnType]

    @contextmanager
    def context(self, context: Any) -> Iterator[None]:
        """Set what the gradient models see for a block; undone at its end, also by an exception.

        Under activation checkpointing keep ``backward()`` inside the block: it runs the forward pass again.
        """
        before, self._context = self._context, context
        try:
            yield
        finally:
            self._context = before

    def quality(self, loss: Callable[[], Tensor]) -> dict[str, Quality]:
        """Each synthetic gradient against the true one; ``loss`` runs the network and returns its loss."""
        return probe({name: self[name] for name in self._names}, loss, self._net[0])

    def remove(self) -> None:
        """Give the network back as it was."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []


class _Hook:
    """What runs behind a module's forward pass; a class, so that a net that is cut can be copied and pickled."""

    def __init__(self, cut: Cut, name: str):
        self.cut, self.name = cut, name

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> Tensor | None:
        if not isinstance(output, Tensor):
            raise TypeError(
                f"module {self.name!r} ({type(module).__name__}) returns {type(output).__name__}, and an interface "
                "carries one tensor: cut where one is returned, or call the interface on that tensor yourself"
            )
        # The net's own train() and eval() decide, not those of the module: one that is kept in eval (a frozen batch
        # norm) is cut all the same. Interfaces are not the net's children, so they are told.
        interface, training = self.cut[self.name], self.cut._net[0].training
        if interface.training != training:
            interface.train(training)
        return interface(output, self.cut._context) if training else None


def decouple(net: nn.Module, interfaces: Mapping[str, Interface | GradientModel]) -> Cut:
    """Put an interface behind each named module of a network, through forward hooks.

    Gradients are decoupled at once; one ``loss.backward()`` still runs them all (for updates that do not
    wait, run the parts through ``unlocked``). The net keeps its class and ``state_dict``.

    Args:
        net: any module.
        interfaces: ``{module name: interface}``, names as in ``net.named_modules()``; a gradient model is
            wrapped as ``Interface(model)``.

    Returns:
        The cut: its ``parameters()`` are for an optimizer; ``context(y)``, ``quality(...)``, ``remove()``.

    Raises:
        KeyError: if a name is not that of a module; the nearest ones are named.
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
    # ModuleDict refuses the names of its own methods, such as "values", which is a module in attention.
    return f"{key}/" if hasattr(nn.ModuleDict, key) else key
