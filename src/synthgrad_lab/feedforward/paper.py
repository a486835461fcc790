"""The errors that the paper reports, to compare with ours."""

from __future__ import annotations

from synthgrad_lab.feedforward.settings import PAPER

TABLE: dict[str, dict[int, tuple[float, float, float, float]]] = {
    "mnist-fcn": {
        3: (9.3, 2.0, 1.9, 2.2),
        4: (12.6, 1.8, 2.2, 1.9),
        5: (16.2, 1.8, 3.4, 1.7),
        6: (21.4, 1.8, 4.3, 1.6),
    },
    "cifar-cnn": {3: (28.7, 17.9, 19.5, 19.0), 4: (38.1, 15.7, 19.5, 16.4)},
    "cifar-fcn": {
        3: (54.9, 43.5, 42.5, 48.5),
        4: (57.2, 43.0, 45.0, 45.1),
        5: (59.6, 41.7, 46.9, 43.5),
        6: (61.9, 42.0, 49.7, 46.8),
    },
    "mnist-cnn": {3: (0.9, 0.8, 0.9, 1.0), 4: (2.8, 0.6, 0.7, 0.8)},
}
"""Final test error in percent, by network, layers (with the output layer) and method (as in ``PAPER``): every layer
decoupled, 500,000 iterations of batch 256. Jaderberg et al. 2017 (arXiv 1608.05343), the table of feed-forward
results [seen: read in the paper's own table]."""

WIDTHS = {"mnist-fcn": 256, "mnist-cnn": 64, "cifar-fcn": 1000, "cifar-cnn": 128}
"""The paper's hidden units or filters, by network."""

ITERATIONS = 500_000
"""Updates of each layer in the runs of the table."""


def reported(data: str, recipe: str, method: str, layers: int, width: int | None = None) -> float | None:
    """The paper's test error in percent, or None where it gives none; without a width the network may have any."""
    if data not in ("mnist", "cifar10") or recipe not in TABLE or width not in (None, WIDTHS[recipe]):
        return None
    errors: dict[str, float] = dict(zip(PAPER, TABLE[recipe].get(layers, ()), strict=False))
    return errors.get(method)
