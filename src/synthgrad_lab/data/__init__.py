"""Data: one file per source."""

import difflib
from pathlib import Path

from synthgrad_lab.data import cifar, mnist
from synthgrad_lab.data.images import Images

__all__ = ["Images", "load"]


def load(name: str = "mnist", data_dir: str | Path | None = None, cache: Path | None = None) -> Images:
    """Load a data set, fetching it the first time.

    Args:
        name: `mnist`, `fashion-mnist` or `cifar10`.
        data_dir: Folder with the data set's files, in it or in a sub-folder under its usual name, such as
            torchvision's `MNIST/raw` or `cifar-10-batches-py`; for CIFAR-10, its archive will do. Nothing else is
            tried.
        cache: Folder for fetched files; default `$SYNTHGRAD_CACHE`, else the user's cache folder.

    Returns:
        5,000 validation images, 10,000 test images and the others, 55,000 or 45,000 (CIFAR-10), for training; the
        split never depends on a run's seed.

    Raises:
        ValueError: The name is unknown, or a file in `data_dir` is damaged, swapped or of another data set.
        FileNotFoundError: Files are in no source that can be reached.
        NotADirectoryError: `data_dir` is a file.
    """
    if data_dir is not None and (place := Path(data_dir)).exists() and not place.is_dir():
        raise NotADirectoryError(
            f"data_dir={place} is a file, wanted the folder with the data's files: unpack it, or name its folder"
        )
    if name in mnist.SPECS:
        return mnist.load_spec(mnist.SPECS[name], data_dir, cache)
    if name in cifar.LAYOUTS:
        return cifar.load_layouts(cifar.LAYOUTS[name], data_dir, cache)
    names = [*mnist.SPECS, *cifar.LAYOUTS]
    (nearest,) = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0)
    raise ValueError(f"unknown data set {name!r}, wanted one of {', '.join(names)}; did you mean {nearest!r}?")
