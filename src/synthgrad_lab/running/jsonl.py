"""Lines of JSON: one object a line, files written whole or not at all."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

Row = dict[str, Any]
"""A record, or a row of a table, by column name."""


def to_json(value: Any) -> str:
    """One line of JSON; a number that JSON has no word for (NaN, infinity) becomes null."""
    return json.dumps(_plain(value), allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def lines_to(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write a file of JSON lines, whole or not at all."""
    from synthgrad.checkpoint import write_atomically  # needs torch, which a command's --help must not wait for

    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, "".join(to_json(row) + "\n" for row in rows).encode())
    return path


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a file that ``lines_to`` wrote."""
    return [json.loads(line) for line in path.read_text().splitlines()]
