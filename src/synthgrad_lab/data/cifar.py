"""CIFAR-10: its two formats, the published files, and where to get them.

Both formats are read into the same records: a label byte, then 3 planes of 32 by 32 pixels. A Python batch is a
pickle, and a pickle can call any function that it names. This reader calls none: stand-ins take the place of
NumPy's names and only record their arguments, from which the array is made afterwards.

References:
    Krizhevsky (2009), Learning Multiple Layers of Features from Tiny Images.
"""

import io
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from synthgrad_lab.data.data_set import Archive, DataSet, File

PIXELS = 3 * 32 * 32
CLASSES = 10


def parse_binary(content: bytes, where: str) -> np.ndarray:
    """Read the binary batch named `where`, which is nothing but records, as a read-only array of a row for each.

    Raises:
        ValueError: The length is no multiple of a record's, or a label is not from 0 to 9.
    """
    if len(content) % (1 + PIXELS):
        raise ValueError(
            f"{where}: came {len(content):,} bytes, wanted whole records of {1 + PIXELS:,}: truncated, bytes "
            "follow its end, or another format; download it again"
        )
    rows = np.frombuffer(content, np.uint8).reshape(-1, 1 + PIXELS)
    _check_labels(rows[:, 0].tolist(), where)
    return rows


def parse_python(content: bytes, where: str) -> np.ndarray:
    """Read a Python batch, a pickled dict of `data` (rows of 3,072 bytes) and `labels`, without running any of it.

    Raises:
        ValueError: The pickle is damaged, names a function that no NumPy array needs, or is not a batch.
    """
    stream = io.BytesIO(content)
    try:
        batch = _Reader(stream, encoding="bytes").load()
    except Exception as error:  # a damaged pickle can raise anything
        raise ValueError(
            f"{where}: came a pickle that is damaged or not a batch ({type(error).__name__}: {str(error)[:160]}), "
            "wanted a dict of lists and a NumPy array; download it again from a place that you trust"
        ) from error
    if stream.read(1):
        raise ValueError(f"{where}: bytes follow the pickle's end, wanted one pickle; download it again")
    if not isinstance(batch, dict) or not {b"data", b"labels"} <= batch.keys():
        raise ValueError(
            f"{where}: came a pickle without data and labels, wanted a CIFAR-10 batch; download it again"
        )
    labels, pixels = batch[b"labels"], _to_array(batch[b"data"], where)
    if not isinstance(labels, list) or len(labels) != len(pixels):
        came = f"{len(labels):,}" if isinstance(labels, list) else type(labels).__name__
        raise ValueError(f"{where}: came labels: {came}, wanted a list of {len(pixels):,}, one for each image")
    _check_labels(labels, where)
    return np.column_stack([np.array(labels, np.uint8), pixels])


def _check_labels(labels: Sequence[Any], where: str) -> None:
    for record, label in enumerate(labels):
        if type(label) is not int or not 0 <= label < CLASSES:
            came = label if type(label) is int and abs(label) < 1 << 32 else f"of type {type(label).__name__}"
            raise ValueError(
                f"{where}: came label {came} in record {record:,}, wanted 0 to {CLASSES - 1}: damaged or another "
                "data set; download it again"
            )


class _StandIn:
    """Stands for an array or a dtype, and records the arguments and the state that the file gives it."""

    def __init__(self, *arguments: Any):
        self.arguments, self.state = arguments, None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str, /) -> Any:
        # A pickle can set attributes of any object that it gets, so each one gets functions of its own.
        match module, name:
            case ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") | ("numpy", "dtype"):
                return lambda *arguments: _StandIn(*arguments)
            case "numpy", "ndarray":
                return None  # passed to _reconstruct, never called
            case "_codecs", "encode":  # how Python 3 writes bytes for Python 2
                return lambda text, encoding: text.encode("latin1")
        raise pickle.UnpicklingError(f"it asks for {f'{module}.{name}'[:80]!r}, refused")


def _to_array(value: Any, where: str) -> np.ndarray:
    """Make the array that a stand-in stands for; its state is ([version], shape, dtype, Fortran order, bytes)."""
    state = value.state if isinstance(value, _StandIn) else None
    shape, dtype, fortran, raw = state[-4:] if isinstance(state, tuple) and len(state) in (4, 5) else [None] * 4
    kind = dtype.arguments[:1] if isinstance(dtype, _StandIn) else ()
    if kind not in ((b"u1",), ("u1",)) or fortran or not isinstance(raw, bytes):
        raise ValueError(f"{where}: came data that are no plain uint8 array, wanted one; download it again")
    count = shape[0] if isinstance(shape, tuple) and len(shape) == 2 else None
    if type(count) is not int or shape != (count, PIXELS) or len(raw) != count * PIXELS:
        raise ValueError(
            f"{where}: came an array of shape {shape!r:.60} in {len(raw):,} bytes, wanted rows of {PIXELS:,}; "
            "download it again"
        )
    return np.frombuffer(raw, np.uint8).reshape(count, PIXELS)


def _arrange(*records: np.ndarray) -> tuple[np.ndarray, ...]:
    parts = np.concatenate(records[:-1]), records[-1]
    return tuple(array for rows in parts for array in (rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0]))


def _data_set(
    kind: str, folder: str, parse: Callable[[bytes, str], np.ndarray], end: str, archive_md5: str, *md5s: str
) -> DataSet:
    names = [f"data_batch_{i}{end}" for i in range(1, 6)] + [f"test_batch{end}"]
    return DataSet(
        "cifar10",
        "CIFAR-10",
        tuple(File(name, (10000, 1 + PIXELS), md5) for name, md5 in zip(names, md5s, strict=True)),
        parse,
        _arrange,
        archive=Archive(f"https://www.cs.toronto.edu/~kriz/cifar-10-{kind}.tar.gz", archive_md5, folder),
        folders=(folder,),
        published_only=False,  # a copy that was stored as JPEG images is of use
    )


BINARY = _data_set(
    "binary", "cifar-10-batches-bin", parse_binary, ".bin", "c32a1d4ab5d03f1284b67883e8d87530",
    # The files' MD5s are not on the data set's page; two public projects, rai-project/dldataset and pytorch-cpp,
    # check these.
    "5dd7e06a14cb22eb9f671a540d1b7c25", "5ea93a67294ea407fff1d09f752e9692", "942cd6a4bcdd0dd3c604fbe906cb4421",
    "ae636b3ba5c66a11e91e8cb52e771fcb", "53f37980c15c3d472c316c40844f3f0d", "803d5f7f4d78ea53de84dbe85f74fb6d",
)  # fmt: skip
PYTHON = _data_set(
    "python", "cifar-10-batches-py", parse_python, "", "c58f30108f718f92721af3b95e74349a",
    # As in torchvision.
    "c99cafc152244af753f735de768cd75f", "d4bba439e000b95fd0a9bffe97cbabec", "54ebc095f3ab1f0389bbae665268c751",
    "634d18415352ddfa80567beed471001a", "482c414d41f54cd18b22e5b47cb7c3cb", "40351d587109b95175f43aff81a1287e",
)  # fmt: skip
