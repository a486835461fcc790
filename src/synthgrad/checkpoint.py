"""Checkpoints: written whole or not at all, read without running anybody's code."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path
from typing import Any

import torch

NAME = "checkpoint.pt"


def save(folder: Path, state: dict[str, Any]) -> None:
    """Replace the folder's checkpoint (tensors, numbers, texts, lists and dicts of them)."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    replace(folder / NAME, buffer.getvalue())


def load(folder: Path) -> dict[str, Any]:
    """Read the folder's checkpoint.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it cannot be read, or holds anything but plain data.
    """
    path = folder / NAME
    if not path.exists():
        raise FileNotFoundError(f"{folder} holds no {NAME}: there is nothing to resume; start the run anew")
    try:
        return torch.load(path, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        reason = str(error).partition("\n")[0] or "it is empty"
        raise ValueError(f"{path} is not a checkpoint that can be trusted ({reason}); start the run anew") from None


def replace(path: Path, content: bytes) -> None:
    """Write a file so that after a crash the old one or the new one is there, whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
