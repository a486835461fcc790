"""Progress bars on standard error: measure, steps per second and time left of each run."""

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
        whole = task.fields["text"] is not None  # the bar of all runs, whose work is not counted in steps
        return Text("" if whole else f"{task.speed or 0:6.0f} steps/s", style="dim")


class _Measure(ProgressColumn):
    def render(self, task: Task) -> Text:
        measure = task.fields["measure"]
        return Text("" if math.isnan(measure) else task.fields["shown"].format(measure))


class _Done(MofNCompleteColumn):
    def render(self, task: Task) -> Text:
        text = task.fields["text"]
        return super().render(task) if text is None else Text(text, style="progress.download")


class Bars:
    """One bar per run, shown from its first step on; without a terminal, one line per run when it ends.

    Args:
        brief: show only the runs under way.
    """

    def __init__(self, brief: bool = False) -> None:
        self.brief = brief
        self.console = Console(file=sys.stderr)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            _Done(),
            _Measure(),
            _Speed(),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
            speed_estimate_period=300,  # runs differ in speed: an estimate over many of them
        )

    def __enter__(self) -> Bars:
        self.progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.progress.stop()

    def bar(self, name: str, total: int, shown: str = "{:.2f}") -> Callable[[int, float], None]:
        """Add a bar; returns a function of (steps done, measure), which is shown in the format ``shown``."""
        fields = {"measure": math.nan, "shown": shown, "text": None}
        task = self.progress.add_task(name, total=total, visible=False, start=False, **fields)

        def advance(done: int, measure: float) -> None:
            if not self.progress.tasks[task].started:
                self.progress.start_task(task)
            self.progress.update(task, completed=done, measure=measure, visible=not (self.brief and done == total))
            if done == total and not self.console.is_terminal:
                text = "" if math.isnan(measure) else ", " + shown.format(measure)
                self.console.print(f"{name}: {done} steps{text}", highlight=False)

        return advance

    def whole(self, runs: int, total: float) -> Callable[[int, float], None]:
        """Add a bar for all runs together, with the time left; returns a function of (runs done, work done)."""
        task = self.progress.add_task("all runs", total=total, measure=math.nan, shown="", text=f"0/{runs} runs")

        def advance(done: int, work: float) -> None:
            self.progress.update(task, completed=work, text=f"{done}/{runs} runs")

        return advance
