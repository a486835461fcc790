"""Labelled images in three parts, and the split that never changes."""

from dataclasses import dataclass, replace
from itertools import chain

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
    """The name in reports: the data set, and whether its files differ from the published ones."""
    classes: int = 10

    def to(self, device: str) -> "Images":
        """Copy the images to another device."""
        return replace(self, **{k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)})


def split_images(
    x: UInt8[np.ndarray, "examples channels height width"],
    y: UInt8[np.ndarray, " examples"],
    test_x: UInt8[np.ndarray, "test channels height width"],
    test_y: UInt8[np.ndarray, " test"],
    *,
    validation: int,
    source: str,
) -> Images:
    """Scale pixels from 0..255 to [0, 1], and set `validation` of the training examples aside."""
    train, aside = split_indices(len(x), validation)
    parts = _tensors(x[train], y[train]), _tensors(x[aside], y[aside]), _tensors(test_x, test_y)
    return Images(*chain(*parts), source=source)


def split_indices(count: int, validation: int) -> tuple[np.ndarray, np.ndarray]:
    """Choose the training and the validation examples at random, but always the same ones.

    They are ordered by 64-bit random words, because NumPy promises to keep a bit generator's words, but not its
    permutations: the split survives upgrades.
    """
    order = np.argsort(np.random.PCG64(0).random_raw(count), kind="stable")
    return order[validation:], order[:validation]


def _tensors(x: np.ndarray, y: np.ndarray) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(x.astype(np.float32, order="C")).div_(255), torch.from_numpy(y.astype(np.int64))
