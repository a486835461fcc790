"""A logarithmic axis for errors in percent."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

DIGITS = (
    (1, 2, 3, 5),
    (1, 1.5, 2, 3, 4, 5, 7),
    *([d / n for d in range(n, 10 * n)] for n in (2, 5, 10, 20, 50, 200)),
)
"""Leading digits of a logarithmic axis' labels, from coarse to fine: the first that gives four labels is taken."""


def logarithmic(ax: Axes) -> None:
    """A logarithmic axis whose labels are plain numbers, also where it spans less than a decade."""
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    ticks: list[float] = []
    for digits in DIGITS:
        ticks = [d * 10.0**power for power in range(-3, 3) for d in digits if low <= d * 10.0**power <= high]
        if len(ticks) >= 4:
            break
    ax.yaxis.set_major_locator(FixedLocator(ticks))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.grid(axis="y", color="#e5e5e5", linewidth=0.8)
