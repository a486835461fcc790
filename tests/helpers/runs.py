"""Runs by their folder, as the command takes them up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from synthgrad_lab.families import settings_from
from synthgrad_lab.running import loop
from synthgrad_lab.running.run_folder import first_line
from synthgrad_lab.running.settings import Settings


def recorded(folder: Path) -> Settings:
    return settings_from(first_line(folder)["settings"])


def resume(folder: Path, *progress: Any) -> dict[str, Any]:
    return loop.resume(folder, recorded(folder), *progress)
