"""Recognises files by their first bytes, to unpack gzip and to name in errors what came instead."""

import gzip
import zlib
from pathlib import Path

_SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (b"\x1f\x8b", "a gzip file", "gunzip"),
    (b"\x1f\x9d", "a file of compress", "uncompress"),
    (b"PK\x03\x04", "a zip archive", "unzip"),
    (b"PK\x05\x06", "an empty zip archive", ""),
    (b"PK\x07\x08", "a zip archive in parts", "unzip"),
    *((b"BZh%d1AY&SY" % level, "a bzip2 file", "bunzip2") for level in range(1, 10)),
    (b"\xfd7zXZ\0", "an xz file", "unxz"),
    (b"\x5d\0\0", "an lzma file", "unlzma"),
    (b"LZIP\x01", "an lzip file", "lzip -d"),
    (b"\x28\xb5\x2f\xfd", "a zstd file", "unzstd"),
    (b"\x04\x22\x4d\x18", "an lz4 file", "unlz4"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "7z x"),
    (b"Rar!\x1a\x07", "a rar archive", "unrar x"),
    (b"%PDF-", "a PDF", "pdftotext"),
    (b"{\\rtf", "an RTF document", ""),
    (b"\xd0\xcf\x11\xe0", "an old Office document", ""),
    (b"\x89PNG", "a PNG image", ""),
    (b"\xff\xd8\xff", "a JPEG image", ""),
    (b"PAR1\x15", "a Parquet table", ""),
    (b"SQLite format 3\0", "an SQLite database", ""),
    (b"\x93NUMPY", "a NumPy array", ""),
    (b"\x7fELF", "a program", ""),
    (b"version https://git-lfs", "a git-lfs pointer instead of its file", "git lfs pull --include"),
)
"""First bytes, name, and the command that extracts the content."""


def identify(content: bytes) -> tuple[str, str] | None:
    """Return the format's name and the command that extracts the content ("" if none); None if unknown."""
    if content[257:262] == b"ustar":
        return "a tar archive", "tar xf"
    return next(((name, command) for first, name, command in _SIGNATURES if content.startswith(first)), None)


def reject_known_format(content: bytes, where: str, wanted: str) -> None:
    """Raise a ValueError that names the file's format and what was wanted, if its first bytes show the format."""
    if found := identify(content):
        name, command = found
        remedy = f"unpack it first: {command} {where}" if command else "give the plain file"
        raise ValueError(f"{where}: came {name}, wanted {wanted}; {remedy}")


def gunzip(content: bytes, where: str) -> bytes:
    """Gunzip a file's content; return it as it is if it is not gzipped. `where` is the file's name, for the error.

    The content decides, not the name, since browsers and mirrors unpack `.gz` without renaming it. No data set's
    file looks like gzip: IDX starts with two zeros, a batch of CIFAR-10 with a label below 10 or a pickle's 0x80.

    Raises:
        ValueError: The gzip stream is truncated or damaged.
    """
    if not content.startswith(b"\x1f\x8b"):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(
            f"{where}: came {len(content):,} bytes of damaged gzip ({error}), wanted one whole gzip stream; "
            "download it again"
        ) from error


def archives_hint(folder: Path) -> str:
    """Suggest to unpack the archives in a folder: a sentence for an error about missing files; "" without any."""
    ends = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".7z", ".rar")
    names = [path.name for path in sorted(folder.glob("*")) if path.name.lower().endswith(ends)]
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f" If they are inside {shown}, unpack that first." if names else ""
