"""Finds a data set's files: in a folder that the user names; else in the cache; else in the public sources.

A file from the cache or a public source must have the published MD5. In a user's own folder, the right form is
enough for some data sets: `DataSet.published_only`.
"""

import contextlib
import logging
import subprocess
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from synthgrad_lab.data.data_set import DataSet, File, Formats
from synthgrad_lab.data.images import Images, split_images
from synthgrad_lab.data.signatures import archives_hint, gunzip
from synthgrad_lab.data.sources import cache_folder, sources

log = logging.getLogger("synthgrad_lab.data")


def load_images(
    formats: Formats, data_dir: str | Path | None = None, cache: Path | None = None, known: Formats = ()
) -> Images:
    """Load images as `synthgrad_lab.data.load` does; files of `known` data sets, found by mistake, are named."""
    known = (*known, *formats)
    if data_dir is None:
        data = formats[0]
        arrays, source = _from_cache_or_sources(data, cache_folder(cache) / data.name, known), data.title
    else:
        data, arrays, source = _from_folder(formats, Path(data_dir), known)
    parts = data.arrange(*(arrays.pop(file.name) for file in data.files))
    return split_images(*parts, validation=data.validation, source=source)


def _from_folder(formats: Formats, folder: Path, known: Formats) -> tuple[DataSet, dict[str, np.ndarray], str]:
    """Read a user's own files: their format, their arrays by name, and the name of these images in reports."""
    arrays, seen = {}, {}
    data, contents = _find_format(formats, folder)
    for file, content, where in contents:
        arrays[file.name], digest = data.check(file, content, where, known, data.published_only)
        if digest in seen:
            others = f"holds the same as {seen[digest]}, wanted {len(data.files)} different files"
            raise ValueError(f"{where}: {others}; download it again")
        seen[digest] = file.name
    published = seen.keys() == {file.md5 for file in data.files}
    return data, arrays, data.title if published else f"{data.title} (other files than the published ones)"


def _find_format(formats: Formats, folder: Path) -> tuple[DataSet, Iterator[tuple[File, bytes, str]]]:
    """Choose the first format whose files are all in one place, else the first one whose archive is there."""
    incomplete = []
    for data in formats:
        # Each place by itself: files from two copies of the data could share images.
        for place in (*(folder / sub for sub in data.folders), folder):
            paths = {file: file.find(place) for file in data.files}
            missing = [file.name for file, path in paths.items() if not path]
            if not missing:
                return data, ((file, _read(path), str(path)) for file, path in paths.items() if path)
            incomplete.append((place, missing))
    for data in formats:
        if (archive := data.archive) and (path := folder / archive.name).is_file():
            contents = archive.members(path, data.files)
            return data, ((file, content, f"{archive.folder}/{file.name} in {path}") for file, content in contents)
    place, missing = min(incomplete, key=lambda item: len(item[1]))
    accepted = [name for data in formats for name in (*data.folders, data.archive and data.archive.name) if name]
    raise FileNotFoundError(
        f"{formats[0].name}: {', '.join(missing)} not in the data folder {place}.\n"
        f"Put into {folder} all {len(formats[0].files)} files, plain or .gz, or one of {', '.join(accepted)}."
        f"{archives_hint(folder)}"
    )


def _from_cache_or_sources(data: DataSet, folder: Path, known: Formats) -> dict[str, np.ndarray]:
    """Read the files from the cache, download those that are missing, and write these to the cache."""
    arrays = _from_cache(data, folder, known)
    tried = []
    for source, read in sources(data):
        missing = [file for file in data.files if file.name not in arrays]
        if not missing:
            break
        tried.append(source)
        log.info("%s: %d files from %s", data.name, len(missing), source)
        try:
            for file, packed in read(missing):
                where = f"{file.name} from {source}"
                content = gunzip(packed, where)
                arrays[file.name], _ = data.check(file, content, where, known)
                _keep(content, folder / file.name)
        # One failure ends a source: a dead network must cost one time-out, not one for each file.
        except (OSError, ValueError, KeyError, subprocess.SubprocessError, tarfile.TarError) as error:
            dead = type(error).__name__ in ("ConnectionError", "ConnectTimeout")  # of requests: long texts
            reason = "cannot be reached" if dead else f"failed: {type(error).__name__}: {str(error)[:160]}"
            log.warning("%s %s", source, reason)
    if len(arrays) < len(data.files):
        instead = f" (or their archive, {data.archive.name}, into the latter)" if data.archive else ""
        raise FileNotFoundError(
            f"{data.name}: not in {folder}, and not available from {', '.join(tried) or 'anywhere else'}.\n"
            "Put these files, plain or .gz, there or into a folder given as data_dir"
            f"{instead}: {', '.join(file.name for file in data.files)}."
        )
    return arrays


def _from_cache(data: DataSet, folder: Path, known: Formats) -> dict[str, np.ndarray]:
    """Read the files that are in the cache, and remove damaged ones."""
    arrays = {}
    for file in data.files:
        if path := file.find(folder):
            try:
                arrays[file.name], _ = data.check(file, _read(path), str(path), known)
            except OSError as error:
                log.warning("cannot read the cache: %s", error)
            except ValueError as error:
                log.warning("removed from the cache, to be downloaded again: %s", error)
                with contextlib.suppress(OSError):
                    path.unlink()
    return arrays


def _keep(content: bytes, path: Path) -> None:
    """Write to the cache in one step, so that no reader sees half a file. Readers check the MD5: no fsync."""
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        log.warning("%s not cached: %s", path, error)
        with contextlib.suppress(OSError):
            part.unlink()


def _read(path: Path) -> bytes:
    return gunzip(path.read_bytes(), str(path))
