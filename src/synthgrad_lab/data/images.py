"""Labelled images in three parts, and the split that never changes."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor


@dataclass(frozen=True)
class Images:
    """Images in [0, 1] and their classes, in three disjoint parts; choose on validation, report on test."""

    train_x: Float[Tensor, "train channels height width"]
    train_y: Int64[Tensor, " train"]
    validation_x: Float[Tensor, "validation channels height width"]
    validation_y: Int64[Tensor, " validation"]
    test_x: Float[Tensor, "test channels height width"]
    test_y: Int64[Tensor, " test"]
    source: str
    """What a report calls these images: the data set, and whether the files are others than the published ones."""
    classes: int = 10

    def to(self, device: str) -> "Images":
        """The same on another device."""
        tensors = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **tensors)


def divided(
    x: UInt8[np.ndarray, "examples channels height width"],
    y: UInt8[np.ndarray, " examples"],
    test_x: UInt8[np.ndarray, "test channels height width"],
    test_y: UInt8[np.ndarray, " test"],
    *,
    validation: int,
    source: str,
) -> Images:
    """The images that pixels from 0 to 255 make, `validation` of the training examples set aside."""
    kept, aside = split(len(x), validation)
    return Images(
        *(_pixels(x[kept]), _classes(y[kept])),
        *(_pixels(x[aside]), _classes(y[aside])),
        *(_pixels(test_x), _classes(test_y)),
        source=source,
    )


def split(count: int, validation: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the training and validation examples: always the same ones, drawn at random once.

    The order is that of 64-bit random words, because NumPy promises a bit generator's words for ever, but no
    permutation: the split outlives upgrades.
    """
    order = np.argsort(np.random.PCG64(0).random_raw(count), kind="stable")
    return order[validation:], order[:validation]


def _pixels(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.astype(np.float32, order="C")).div_(255)


def _classes(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.astype(np.int64))
