"""The recipe of the multi-network system."""

from __future__ import annotations

from collections.abc import Callable

from synthgrad_lab.clocks.settings import Method, Settings

USUAL: Method = "dni"


def clocks(method: Method = USUAL) -> Settings:
    """MNIST digits in a stream: A counts the odd ones of every T; B, from A's messages, the 3s of every T². In %."""
    return Settings(method=method)


RECIPES: dict[str, Callable[[Method], Settings]] = {"clocks": clocks}
