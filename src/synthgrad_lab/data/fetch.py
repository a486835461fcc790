"""A data set's files from the cache or else fetched and cached: only published content, whatever the source."""

import contextlib
import hashlib
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from synthgrad_lab.data.idx import unpack
from synthgrad_lab.data.signatures import refuse
from synthgrad_lab.data.sources import File, Spec, cache_folder, keep, sources
from synthgrad_lab.running.record import note


def read(path: Path) -> bytes:
    """A file's uncompressed content."""
    return unpack(path.read_bytes(), str(path))


def checked(
    spec: Spec, file: File, content: bytes, where: str, family: Sequence[Spec] = ()
) -> tuple[np.ndarray, str]:
    """The array in a file of the right form, published or not.

    Args:
        spec: The data set.
        file: Which of its files this should be.
        content: The bytes of the file, uncompressed.
        where: The file's name, for errors.
        family: Data sets whose files are easily put in the place of this one.

    Returns:
        The array, and the MD5 of the content, to compare with the published one.

    Raises:
        ValueError: The content is another published file's, or not of the form or shape that it must be.
    """
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    known = {f.md5: f"{s.name}'s {f.name}" for s in (*family, spec) for f in s.files}
    if digest != file.md5 and digest in known:
        raise ValueError(
            f"{where}: holds the content of {known[digest]}, wanted {spec.name}'s {file.name}; "
            "put the right file there"
        )
    try:
        array = spec.parse(content, where)
    except ValueError:
        refuse(content, where, f"{spec.name}'s {file.name}")
        raise
    if array.shape != file.shape:
        raise ValueError(
            f"{where}: came shape {array.shape} with MD5 {digest}, wanted {file.shape} with {file.md5}: damaged or "
            "another data set; fetch it again"
        )
    return array, digest


def verified(spec: Spec, file: File, content: bytes, where: str, family: Sequence[Spec] = ()) -> np.ndarray:
    """The array in the published file, see `checked`; ValueError if the content is any other."""
    array, digest = checked(spec, file, content, where, family)
    if digest != file.md5:
        raise ValueError(
            f"{where}: came MD5 {digest}, wanted {file.md5}: damaged or another data set; fetch it again"
        )
    return array


def cached_or_fetched(spec: Spec, cache: Path | None, family: Sequence[Spec] = ()) -> dict[str, np.ndarray]:
    """All arrays of a data set, by the files' names.

    Args:
        spec: The data set.
        cache: See `synthgrad_lab.data.load`.
        family: See `checked`.

    Raises:
        FileNotFoundError: Files are neither in the cache nor in a source that can be reached.
    """
    folder = cache_folder(cache) / spec.name
    arrays: dict[str, np.ndarray] = {}
    for file in spec.files:
        if path := file.find(folder):
            try:
                arrays[file.name] = verified(spec, file, read(path), str(path), family)
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
                content = unpack(packed, where)
                arrays[file.name] = verified(spec, file, content, where, family)
                keep(content, folder / file.name)
        # One failure ends a source: a dead network must cost one time-out, not one per file.
        except (OSError, ValueError, KeyError, subprocess.SubprocessError, tarfile.TarError) as error:
            dead = type(error).__name__ in ("ConnectionError", "ConnectTimeout")  # of requests, in many words
            reason = "cannot be reached" if dead else f"failed: {type(error).__name__}: {str(error)[:160]}"
            note(f"synthgrad: warning: {source} {reason}")
    if len(arrays) < len(spec.files):
        instead = f" (or their archive, {spec.archive.name}, into the latter)" if spec.archive else ""
        raise FileNotFoundError(
            f"{spec.name}: not in {folder}, and not to be had from {', '.join(tried) or 'anywhere else'}.\n"
            f"Put these files, plain or .gz, there or into a folder given as data_dir{instead}: {spec.names}."
        )
    return arrays
