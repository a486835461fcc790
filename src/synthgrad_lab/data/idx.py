"""IDX, the format of MNIST: a header of big-endian sizes, then the bytes of one array.

`00 00 08 n`, n sizes of 4 bytes each, product(sizes) unsigned bytes.
"""

import gzip
import math
import struct
import zlib

import numpy as np

_UINT8 = 0x08
_MAX_DIMS = 32


def gunzip(content: bytes, where: str) -> bytes:
    """Gunzip a file's content if it is gzipped.

    The content decides, not the name, since browsers and mirrors unpack `.gz` without renaming it. No data set's
    file looks like gzip: IDX starts with two zeros, a batch of CIFAR-10 with a label below 10 or a pickle's 0x80.

    Args:
        content: The bytes of the file.
        where: The file's name, for the error.

    Returns:
        The uncompressed bytes; `content` itself if it is not gzipped.

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


def parse(content: bytes, where: str) -> np.ndarray:
    """Read one IDX file of unsigned bytes, plain or gzipped.

    Args:
        content: The bytes of the file.
        where: The file's name, for errors.

    Returns:
        A read-only uint8 array of the shape that the header gives.

    Raises:
        ValueError: The header is not that of an IDX file of unsigned bytes, or the length does not match it.

    Example:
        >>> parse(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9]), "labels")
        array([7, 9], dtype=uint8)
    """
    content = gunzip(content, where)
    magic = content[:4]
    if len(magic) < 4 or magic[:3] != bytes([0, 0, _UINT8]) or not 1 <= magic[3] <= _MAX_DIMS:
        raise ValueError(
            f"{where}: came {len(content):,} bytes that start with {magic.hex(' ') or 'nothing'}, wanted an IDX "
            f"file of unsigned bytes, 00 00 08 and 01 to {_MAX_DIMS:02x} dimensions; download it again, "
            "or convert it"
        )
    header = 4 + 4 * magic[3]
    if len(content) < header:
        raise ValueError(
            f"{where}: came {len(content):,} bytes, wanted a header of {header}: truncated; download it again"
        )
    shape = struct.unpack(f">{magic[3]}I", content[4:header])
    wanted = header + math.prod(shape)
    if len(content) != wanted:
        fault = "truncated" if len(content) < wanted else "bytes follow its end"
        raise ValueError(
            f"{where}: came {len(content):,} bytes, wanted {wanted:,} for the shape {shape} of its header: "
            f"{fault}; download it again"
        )
    return np.frombuffer(content, np.uint8)[header:].reshape(shape)
