"""MNIST, Fashion-MNIST and CIFAR-10, by name; also their augmentation, and the decoding of text files."""

import difflib
from itertools import chain
from pathlib import Path

from synthgrad_lab.data import cifar, mnist
from synthgrad_lab.data.find import load_images
from synthgrad_lab.data.images import Images

__all__ = ["Images", "load"]

DATA_SETS = {data[0].name: data for data in ((mnist.MNIST,), (mnist.FASHION,), (cifar.BINARY, cifar.PYTHON))}


def load(name: str = "mnist", data_dir: str | Path | None = None, cache: Path | None = None) -> Images:
    """Load a data set; the first time, download it.

    Args:
        name: `mnist`, `fashion-mnist` or `cifar10`.
        data_dir: Folder with the data set's files, in it or in a sub-folder under its usual name, such as
            torchvision's `MNIST/raw` or `cifar-10-batches-py`; for CIFAR-10, its archive will do. Nothing else is
            tried.
        cache: Folder for downloaded files; default `$SYNTHGRAD_CACHE`, else the user's cache folder.

    Returns:
        5,000 validation images, 10,000 test images and the others, 55,000 or 45,000 (CIFAR-10), for training; the
        split never depends on a run's seed.

    Raises:
        ValueError: The name is unknown, or a file in `data_dir` is damaged, swapped or of another data set.
        FileNotFoundError: Files are in no source that can be reached.
        NotADirectoryError: `data_dir` is a file.
    """
    if name not in DATA_SETS:
        (nearest,) = difflib.get_close_matches(name.lower(), DATA_SETS, n=1, cutoff=0)
        raise ValueError(
            f"unknown data set {name!r}, wanted one of {', '.join(DATA_SETS)}; did you mean {nearest!r}?"
        )
    if data_dir is not None and (place := Path(data_dir)).exists() and not place.is_dir():
        raise NotADirectoryError(
            f"data_dir={place} is a file, wanted the folder with the data's files: unpack it, or name its folder"
        )
    return load_images(DATA_SETS[name], data_dir, cache, tuple(chain(*DATA_SETS.values())))
