"""The record of a run: JSON lines, written while it runs."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from synthgrad_lab.running.jsonl import lines_to, to_json


class Record:
    """``record.jsonl`` in a run's folder: one JSON object a line, each with its ``kind``, on disk as it comes.

    Kinds: ``settings`` (first line: settings, versions), ``point`` (of the curve), ``interrupted``, ``resumed``,
    ``diverged``, ``timeline`` and ``result`` (last line of a run that ended).
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.path = folder / "record.jsonl"

    def write(self, kind: str, **values: Any) -> None:
        """Append one line, and sync it to the disk."""
        line = to_json({"kind": kind, **values}) + "\n"
        with self.path.open("a") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def read(self, kind: str | None = None) -> list[dict[str, Any]]:
        """The lines, or those of one kind; a last line torn by a crash and other programs' lines are left out."""
        lines = []
        for line in self.path.read_text().splitlines():
            try:
                lines.append(_with_nan(json.loads(line)))
            except json.JSONDecodeError:
                break
        ours = [line for line in lines if isinstance(line, dict) and "kind" in line]
        return [line for line in ours if kind in (None, line["kind"])]

    def rewind(self, step: int) -> None:
        """Drop the points after a step, and a torn last line, before the run is resumed from there."""
        kept = [line for line in self.read() if line["kind"] != "point" or line["step"] <= step]
        lines_to(self.path, kept)


def _with_nan(line: Any) -> Any:
    """Measures of quality with NaN where JSON has null."""
    for measures in line.get("quality", {}).values() if isinstance(line, dict) else ():
        measures.update({name: math.nan for name, value in measures.items() if value is None})
    return line


def environment() -> dict[str, Any]:
    """What a number depends on besides its settings."""
    import torch  # slow; who only reads records does without

    import synthgrad

    return {
        "synthgrad": synthgrad.__version__,
        **commit(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def commit() -> dict[str, Any]:
    """The commit of the code that runs, and whether its files differ from it; nothing without git."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # a virtual environment lies in a repository, too
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "../..")
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(changed)}
    except (OSError, subprocess.SubprocessError):
        return {}
