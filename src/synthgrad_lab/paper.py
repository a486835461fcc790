"""What the paper reports, to stand beside our own numbers."""

from __future__ import annotations

MNIST_FCN: dict[int, dict[str, float]] = {
    3: {"no-bprop": 9.3, "bprop": 2.0, "dni": 1.9, "cdni": 2.2},
    4: {"no-bprop": 12.6, "bprop": 1.8, "dni": 2.2, "cdni": 1.9},
    5: {"no-bprop": 16.2, "bprop": 1.8, "dni": 3.4, "cdni": 1.7},
    6: {"no-bprop": 21.4, "bprop": 1.8, "dni": 4.3, "cdni": 1.6},
}
"""Final test error in percent, by number of layers (the output layer counted) and method: MNIST, fully connected,
256 hidden units, every layer decoupled, 500,000 iterations at batch 256. Jaderberg et al. 2017 (arXiv 1608.05343),
the table of feed-forward results, rows FCN, columns MNIST [seen: read in the paper's own table]."""

ITERATIONS = 500_000
"""Updates of each layer behind ``MNIST_FCN``."""


def test_error(data: str, recipe: str, method: str, layers: int, width: int) -> float | None:
    """The paper's test error in percent for the same network and method, or None where it gives none."""
    if (data, recipe, width) != ("mnist", "mnist-fcn", 256):
        return None
    return MNIST_FCN.get(layers, {}).get(method)
