"""Checkpoints that are written and read whole or not at all; reading one runs no code from the file.

The file is that of ``torch.save`` with a digest appended; ``torch.load`` reads it, too.
"""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import torch

NAME = "checkpoint.pt"
_MARK = b"synthgrad sha256"
_DIGEST = len(_MARK) + hashlib.sha256().digest_size
_ZIP_END = 22  # bytes of the record at the end of a zip file, which marks an older file without a digest


def save(folder: Path, state: dict[str, Any]) -> None:
    """Replace the folder's checkpoint (tensors, numbers, texts, lists and dicts of them).

    Raises:
        OSError: if it cannot be written (a full disk, say); the previous one is still there.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    digest = hashlib.sha256(buffer.getbuffer()).digest()
    buffer.seek(0, io.SEEK_END)
    buffer.write(_MARK + digest)
    path = folder / NAME
    try:
        write_atomically(path, buffer.getbuffer())
    except OSError as error:
        kept = "the previous one is kept" if path.exists() else "there is no previous one"
        raise type(error)(
            error.errno,
            f"cannot write the checkpoint ({error.strerror}); {kept}; free some space, then resume",
            str(path),
        ) from None


def load(folder: Path) -> dict[str, Any]:
    """Read the folder's checkpoint; its tensors are on the CPU, whatever their device was.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is damaged, cannot be read, or holds anything but plain data.
    """
    path = folder / NAME
    if not path.exists():
        raise FileNotFoundError(f"{folder} holds no {NAME}: nothing to resume; start the run from the beginning")
    try:
        state = torch.load(io.BytesIO(_without_digest(path.read_bytes())), map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise TypeError(f"it holds a {type(state).__name__}, no dict")
        return state
    except Exception as error:  # torch raises any kind of error on a damaged file
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(
            f"{path} is not a checkpoint that can be trusted ({reason}); put back a copy of it, or remove it and "
            "start the run from the beginning"
        ) from None


def _without_digest(content: bytes) -> bytes:
    """The content without its digest, after checking it."""
    mark = content[-_DIGEST:][: len(_MARK)]
    if mark == _MARK:
        content, digest = content[:-_DIGEST], content[-_DIGEST + len(_MARK) :]
        if hashlib.sha256(content).digest() != digest:
            raise ValueError("it is damaged: its digest does not match")
    elif content[-_ZIP_END:][:4] != b"PK\5\6":
        raise ValueError("it is incomplete, or damaged at its end" if content else "it is empty")
    return content


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write a file so that even after a crash either the old or the new one is there, complete."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
