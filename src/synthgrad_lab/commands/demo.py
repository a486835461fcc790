"""The command ``demo``: the main job."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from synthgrad_lab.commands.report import written
from synthgrad_lab.commands.words import Command, Json, to_write
from synthgrad_lab.running.ranges import Count, Threads

AGAIN = "; what was recorded is kept, and the same command resumes"


@dataclass(frozen=True)
class Demo(Command):
    """Train four methods beside each other on real MNIST; print their table, write a report.

    Example: synthgrad demo
    """

    out: str = "runs/demo"
    """Folder of the runs; a second call resumes there."""
    steps: Count = 3000
    """Training steps per run."""
    seeds: Count = 3
    """Runs per method."""
    workers: Threads = 2
    """Processes at a time, one thread each."""
    data: Literal["mnist", "fashion-mnist"] = "mnist"
    """The images."""
    data_dir: str | None = None
    """Folder with the data's files; without it the cache, else a download."""
    json: Json = False

    afterwards = AGAIN

    def __call__(self) -> None:
        """Run, measure, report."""
        from synthgrad_lab.feedforward.experiments.demo import demo
        from synthgrad_lab.reporting.tables import show, terminal
        from synthgrad_lab.running.jsonl import to_json

        out = to_write("out", self.out, folder=True)
        folders, cost = demo(out, self.steps, self.seeds, self.workers, self.data, self.data_dir)
        report = Path(out) / "report.html"
        (section,) = written(folders, report, cost=cost)
        if self.json:
            print(to_json({"rows": list(section.rows), "relative_cost": cost, "report": str(report)}))
            return
        show(terminal(section.heading, section.lines, section.caption))
        print(f"report: {report}")
