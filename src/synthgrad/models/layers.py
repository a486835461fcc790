"""Checks of layer sizes, and layers that start at zero."""

from __future__ import annotations

from typing import Any

from torch import nn


def check_sizes(least: int, **settings: Any) -> None:
    """Check that sizes of layers are whole numbers of at least ``least``.

    Raises:
        ValueError: if one is not.
    """
    for name, value in settings.items():
        if not isinstance(value, int) or value < least:
            raise ValueError(f"{name} is {value}; it must be a whole number from {least}")


def start_at_zero(*layers: Any) -> None:
    """Set all parameters of the layers to zero; None is skipped."""
    for layer in layers:
        for parameter in layer.parameters() if layer is not None else ():
            nn.init.zeros_(parameter)
