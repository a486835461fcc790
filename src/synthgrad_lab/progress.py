"""Progress bars on standard error: error, steps per second and time left of each run."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:6.0f} steps/s", style="dim")


class _Error(ProgressColumn):
    def render(self, task: Task) -> Text:
        error = task.fields["error"]
        return Text("" if math.isnan(error) else f"error {error:5.2f} %")


class Bars:
    """One bar per run, shown from its first step on; without a terminal, one line per run when it ends."""

    def __init__(self) -> None:
        self.console = Console(file=sys.stderr)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            _Error(),
            _Speed(),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )

    def __enter__(self) -> Bars:
        self.progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.progress.stop()

    def bar(self, name: str, total: int) -> Callable[[int, float], None]:
        """A new bar; call what is returned with (steps done, error in percent)."""
        task = self.progress.add_task(name, total=total, visible=False, error=math.nan, start=False)

        def advance(done: int, error: float) -> None:
            if not self.progress.tasks[task].started:
                self.progress.start_task(task)
            self.progress.update(task, completed=done, error=error, visible=True)
            if done == total and not self.console.is_terminal:
                told = "" if math.isnan(error) else f", validation error {error:.2f} %"
                self.console.print(f"{name}: {done} steps{told}", highlight=False)

        return advance
