"""Published files, and the archives that hold them."""

import gzip
import math
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

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
        """Read files from a copy of the archive, in the archive's order; unpacks nothing to disk.

        Args:
            path: The copy; its MD5 need not be the published one.
            files: The files to read.

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
