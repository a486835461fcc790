"""The command ``report``: one page, and tables in the terminal, about runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from synthgrad_lab.commands.words import Command, Json, to_write
from synthgrad_lab.families import FAMILIES, settings_from


@dataclass(frozen=True)
class Report(Command):
    """Write a self-contained HTML page about runs, and print their tables.

    Example: synthgrad report runs/demo --out report.html
    """

    folders: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Run folders, or folders of them; without any, all under runs/."""
    out: str = "report.html"
    """The page's file."""
    json: Json = False

    def __call__(self) -> None:
        """Write and print."""
        from synthgrad_lab.reporting.runs import runs_under
        from synthgrad_lab.reporting.tables import show, terminal
        from synthgrad_lab.running.jsonl import to_json

        out = to_write("out", self.out)
        if not self.folders and not Path("runs").is_dir():
            raise FileNotFoundError("there is no run under runs/; start one with: synthgrad run mnist-fcn")
        folders = [run for place in self.folders or ["runs"] for run in runs_under(Path(place))]
        sections = written(folders, out)
        if self.json:
            found = {section.title: list(section.rows or section.lines) for section in sections}
            print(to_json({"report": str(out), "sections": found}))
            return
        for section in sections:
            show(terminal(section.heading or section.title, section.lines, section.caption))
        print(f"report: {out}")


def written(folders: Sequence[Path], out: Path, **options: Any) -> list[Any]:
    """Write the page about the runs in these folders; returns its sections.

    Args:
        folders: one per run.
        out: the page's file.
        options: for the families' ``report.section``.
    """
    from synthgrad_lab.reporting.html_report import Block, environment, write
    from synthgrad_lab.reporting.runs import read

    runs, others = read(folders, _complete)
    sections = []
    for family in FAMILIES:
        mine = [run for run in runs if run.family == family.name]
        if mine and (section := family.part("report", "section")(mine, **options)):
            sections.append(section)
    last = [Block("heading", "Environment"), environment([run.environment for run in runs])]
    if others:
        named = ", ".join(f"{folder} (no run in it)" for folder in others)
        last.insert(0, Block("warning", f"Not in the tables: {named}."))
    write(out, sections, last)
    return sections


def _complete(first: dict[str, Any]) -> dict[str, Any]:
    """The settings of a record, with defaults for those that are newer than it."""
    try:
        return asdict(settings_from(first["settings"]))
    except ValueError:
        return first["settings"]
