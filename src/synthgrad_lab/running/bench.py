"""A benchmark: what ``synthgrad bench NAME`` measures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from synthgrad_lab.running.jsonl import Row
from synthgrad_lab.running.settings import Checked

Bar = Callable[[str, int], Callable[[int], None]]
"""Makes a progress bar from a name and a total; what it returns is called with the number done."""


@dataclass(frozen=True)
class Bench(Checked):
    """A benchmark. A subclass's fields are the options of its command; its docstring is the command's help."""

    def measure(self, bar: Bar) -> tuple[list[Row], dict[str, Any]]:
        """Measure, and return rows, and timelines by schedule where there are any (they are drawn)."""
        raise NotImplementedError
