"""A logarithmic axis for errors in percent."""

from matplotlib.axes import Axes

from synthgrad_lab.reporting.palette import GRID

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
    within = [
        [d * 10.0**power for power in range(-3, 3) for d in digits if low <= d * 10.0**power <= high]
        for digits in DIGITS
    ]
    ticks = next((some for some in within if len(some) >= 4), within[-1])
    ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.set_yticks([], minor=True)
    ax.grid(axis="y", color=GRID, linewidth=0.8)
