"""CIFAR-10 in its two formats: the published files and where to get them.

References:
    Krizhevsky (2009), Learning Multiple Layers of Features from Tiny Images.
"""

from collections.abc import Callable

import numpy as np

from synthgrad_lab.data import batches
from synthgrad_lab.data.data_set import DataSet
from synthgrad_lab.data.files import Archive, File


def _data_set(
    kind: str, folder: str, parse: Callable[[bytes, str], np.ndarray], end: str, archive_md5: str, *md5s: str
) -> DataSet:
    names = [f"data_batch_{i}{end}" for i in range(1, 6)] + [f"test_batch{end}"]
    return DataSet(
        "cifar10",
        "CIFAR-10",
        tuple(File(name, (10000, 1 + batches.PIXELS), md5) for name, md5 in zip(names, md5s, strict=True)),
        parse,
        _arrange,
        archive=Archive(f"https://www.cs.toronto.edu/~kriz/cifar-10-{kind}.tar.gz", archive_md5, folder),
        folders=(folder,),
        published_only=False,  # a copy that was stored as JPEG images is of use
    )


def _arrange(*records: np.ndarray) -> tuple[np.ndarray, ...]:
    train, test = np.concatenate(records[:-1]), records[-1]
    return _pixels(train), train[:, 0], _pixels(test), test[:, 0]


def _pixels(records: np.ndarray) -> np.ndarray:
    return records[:, 1:].reshape(-1, 3, 32, 32)


BINARY = _data_set(
    "binary",
    "cifar-10-batches-bin",
    batches.parse_binary,
    ".bin",
    "c32a1d4ab5d03f1284b67883e8d87530",
    # The files' MD5s are not on the data set's page; two public projects, rai-project/dldataset and pytorch-cpp,
    # check these.
    "5dd7e06a14cb22eb9f671a540d1b7c25",
    "5ea93a67294ea407fff1d09f752e9692",
    "942cd6a4bcdd0dd3c604fbe906cb4421",
    "ae636b3ba5c66a11e91e8cb52e771fcb",
    "53f37980c15c3d472c316c40844f3f0d",
    "803d5f7f4d78ea53de84dbe85f74fb6d",
)
PYTHON = _data_set(
    "python",
    "cifar-10-batches-py",
    batches.parse_python,
    "",
    # As in torchvision.
    "c58f30108f718f92721af3b95e74349a",
    "c99cafc152244af753f735de768cd75f",
    "d4bba439e000b95fd0a9bffe97cbabec",
    "54ebc095f3ab1f0389bbae665268c751",
    "634d18415352ddfa80567beed471001a",
    "482c414d41f54cd18b22e5b47cb7c3cb",
    "40351d587109b95175f43aff81a1287e",
)
