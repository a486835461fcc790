"""The plan of a run: the settings that all its stages share, and where each stage's files are."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthgrad import checkpoint
from synthgrad.stages.channels.zeromq import Keys
from synthgrad.stages.outcome import StageEvent
from synthgrad.stages.policy import Policy
from synthgrad.stages.stage import Stage


@dataclass(frozen=True)
class Plan:
    """The settings that all stages of a run share."""

    build: Callable[[int], Stage]
    stages: int
    steps: int
    policy: Policy
    folder: Path
    run: bytes = field(repr=False)
    """16 bytes that identify the run; packets of another run are refused."""
    sockets: Path | None = None
    """The folder with the sockets, if all stages are on this machine."""
    keys: Keys | None = None

    def stage_folder(self, k: int) -> Path:
        """Stage k's own folder."""
        return self.folder / f"stage-{k}"

    def traceback_file(self, k: int) -> Path:
        """Where stage k writes the traceback of a failure."""
        return self.stage_folder(k) / "error.txt"

    def events_file(self, k: int) -> Path:
        """Where stage k writes its timeline when it stops."""
        return self.stage_folder(k) / "events.json"

    def load_state(self, k: int) -> dict[str, Any]:
        """Stage k's last checkpoint."""
        return checkpoint.load(self.stage_folder(k))

    def load_events(self, k: int) -> list[StageEvent]:
        """Stage k's timeline, once it has stopped."""
        path = self.events_file(k)
        return [StageEvent(**event) for event in json.loads(path.read_text())] if path.exists() else []


def new_run_id() -> bytes:
    """16 random bytes that identify a run."""
    return os.urandom(16)
