"""CIFAR-10: found or fetched, checked, split.

Sources, in order: a folder that the user names, with the files of one layout or with its archive (then nothing else
is looked at); the cache; the public archive. What is fetched or cached must be what was published, by its MD5. A
user's own files need the form only (a copy that went through JPEG has it): `Images.source` tells them apart.

References:
    Krizhevsky (2009), Learning Multiple Layers of Features from Tiny Images.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from synthgrad_lab.data import batches
from synthgrad_lab.data.fetch import cached_or_fetched, checked, read
from synthgrad_lab.data.images import Images, divided
from synthgrad_lab.data.signatures import packed_in
from synthgrad_lab.data.sources import Archive, File, Spec

Layouts = tuple[Spec, ...]
"""The same batches in several formats, the training batches first; the first format is fetched."""


def _files(end: str, *md5s: str) -> tuple[File, ...]:
    names = [f"data_batch_{i}{end}" for i in range(1, 6)] + [f"test_batch{end}"]
    return tuple(File(name, (10000, 1 + batches.PIXELS), md5) for name, md5 in zip(names, md5s, strict=True))


BINARY = Spec(
    "cifar10",
    "CIFAR-10",
    # Not on the data set's page; as two public projects check them, rai-project/dldataset and pytorch-cpp.
    _files(
        ".bin",
        "5dd7e06a14cb22eb9f671a540d1b7c25",
        "5ea93a67294ea407fff1d09f752e9692",
        "942cd6a4bcdd0dd3c604fbe906cb4421",
        "ae636b3ba5c66a11e91e8cb52e771fcb",
        "53f37980c15c3d472c316c40844f3f0d",
        "803d5f7f4d78ea53de84dbe85f74fb6d",
    ),
    batches.binary,
    archive=Archive(
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        "c32a1d4ab5d03f1284b67883e8d87530",
        "cifar-10-batches-bin",
    ),
    folders=("cifar-10-batches-bin",),
)
PYTHON = Spec(
    "cifar10",
    "CIFAR-10",
    _files(  # as in torchvision
        "",
        "c99cafc152244af753f735de768cd75f",
        "d4bba439e000b95fd0a9bffe97cbabec",
        "54ebc095f3ab1f0389bbae665268c751",
        "634d18415352ddfa80567beed471001a",
        "482c414d41f54cd18b22e5b47cb7c3cb",
        "40351d587109b95175f43aff81a1287e",
    ),
    batches.python,
    archive=Archive(
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        "c58f30108f718f92721af3b95e74349a",
        "cifar-10-batches-py",
    ),
    folders=("cifar-10-batches-py",),
)
LAYOUTS: dict[str, Layouts] = {"cifar10": (BINARY, PYTHON)}


def load_layouts(layouts: Layouts, data_dir: str | Path | None = None, cache: Path | None = None) -> Images:
    """Load the data set that `layouts` describe; see `synthgrad_lab.data.load`."""
    if data_dir is None:
        spec = layouts[0]
        arrays, source = cached_or_fetched(spec, cache), spec.title
    else:
        spec, contents = _in_folder(layouts, Path(data_dir))
        arrays, source = _read(spec, layouts, contents)
    *train, test = (arrays.pop(file.name) for file in spec.files)
    return divided(*_examples(train), *_examples([test]), validation=spec.validation, source=source)


def _examples(parts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    rows = np.concatenate(parts)
    return rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0]


_Contents = Iterator[tuple[File, bytes, str]]
"""Files, their contents and their names for errors."""


def _in_folder(layouts: Layouts, folder: Path) -> tuple[Spec, _Contents]:
    """The first layout of which all files are in one place, else the first one whose archive is there."""
    absent = {}
    for spec in layouts:
        # Place by place: of two copies in two places, half each could share images.
        for place in (*(folder / sub for sub in spec.folders), folder):
            absent[place, spec.names] = missing = [file.name for file in spec.files if not file.find(place)]
            if not missing:
                return spec, _loose(spec, place)
    for spec in layouts:
        if spec.archive and (path := folder / spec.archive.name).is_file():
            return spec, _archived(spec.archive, spec, path)
    (place, _), missing = min(absent.items(), key=lambda item: len(item[1]))
    accepted = [name for spec in layouts if spec.archive for name in (*spec.folders, spec.archive.name)]
    raise FileNotFoundError(
        f"{layouts[0].name}: {', '.join(missing)} not in the data folder {place}.\n"
        f"Put into {folder} all six files, or one of {', '.join(accepted)}.{packed_in(folder)}"
    )


def _loose(spec: Spec, place: Path) -> _Contents:
    for file in spec.files:
        if path := file.find(place):
            yield file, read(path), str(path)


def _archived(archive: Archive, spec: Spec, path: Path) -> _Contents:
    for file, content in archive.members(path, spec.files):
        yield file, content, f"{archive.folder}/{file.name} in {path}"


def _read(spec: Spec, layouts: Layouts, contents: _Contents) -> tuple[dict[str, np.ndarray], str]:
    """The arrays by the files' names, and what a report calls them."""
    arrays, seen = {}, {}
    for file, content, where in contents:
        arrays[file.name], digest = checked(spec, file, content, where, layouts)
        if digest in seen:
            raise ValueError(
                f"{where}: holds the same as {seen[digest]}, wanted six different files; fetch it again"
            )
        seen[digest] = file.name
    published = seen.keys() == {file.md5 for file in spec.files}
    return arrays, spec.title if published else f"{spec.title} (other files than the published ones)"
