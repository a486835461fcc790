"""Figures: an empty sheet, shades of a colour, and the bytes of an SVG file."""

import io
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure


def svg(figure: Figure) -> bytes:
    """The figure as SVG with its letters drawn, the same bytes each time."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "synthgrad", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def sheet(width: float, height: float, rows: int, columns: int, **share: Any) -> tuple[Figure, list[Axes]]:
    """Make an empty figure: its size in inches, its panels in rows and columns."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, **share).flat)
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes


def mixed(colour: str, white: float) -> tuple[float, ...]:
    """A colour mixed with white: 0 is the colour itself, 1 is white."""
    return tuple(white + (1 - white) * part for part in to_rgb(colour))


def shade(colour: str, k: int, count: int) -> tuple[float, ...]:
    """The k-th of several shades of a colour, the lightest first."""
    place = k / max(count - 1, 1)
    return tuple((1 - 0.55 * place) * part for part in mixed(colour, 0.45 * (1 - place)))
