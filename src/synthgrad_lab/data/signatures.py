"""What a file is by its first bytes, where it is not what was wanted: packed, or a document of a program."""

from __future__ import annotations

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
    (b"SQLite format 3\0", "an SQLite data base", ""),
    (b"\x93NUMPY", "a NumPy array", ""),
    (b"\x7fELF", "a program", ""),
    (b"version https://git-lfs", "a pointer of git-lfs in the place of its file", "git lfs pull --include"),
)
"""First bytes, name, and the command that gets at what is inside."""


def named(content: bytes) -> tuple[str, str] | None:
    """The name of what these bytes are, and the command that gets at what is inside, or ""; None for any other."""
    if content[257:262] == b"ustar":
        return "a tar archive", "tar xf"
    return next((found[1:] for found in _SIGNATURES if content.startswith(found[0])), None)


def refuse(content: bytes, where: str, wanted: str) -> None:
    """Raise a ValueError that names what came in the place of what was wanted, if its first bytes show it."""
    if found := named(content):
        name, command = found
        cure = f"unpack it first: {command} {where}" if command else "give the plain file"
        raise ValueError(f"{where}: came {name}, wanted {wanted}; {cure}")


def packed_in(folder: Path) -> str:
    """A sentence about the archives in a folder, for an error that misses other files; empty without any."""
    ends = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".7z", ".rar")
    names = [path.name for path in sorted(folder.glob("*")) if path.name.lower().endswith(ends)]
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f" If they are inside {shown}, unpack that first." if names else ""
