"""The parts of a report about runs that are no plain image classification."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from synthgrad_lab.clocks import report as clocks_report
from synthgrad_lab.families import CLOCKS, SEQUENCES
from synthgrad_lab.recurrent import report as recurrent_report
from synthgrad_lab.reporting.html_report import picture, table
from synthgrad_lab.reporting.runs import Run, read
from synthgrad_lab.stages import report as launching_report

RECURRENT, TWO_CLOCKS, STAGED = "Recurrent runs", "Two networks, two clocks", "Runs in stages"
"""The parts' titles."""


def lines(folders: Sequence[Path]) -> dict[str, list[dict[str, str]]]:
    """The tables of all parts, by their titles; those without a run are left out."""
    runs, _ = read(folders)
    found = {
        RECURRENT: recurrent_report.lines(run for run in runs if run.kind is SEQUENCES),
        TWO_CLOCKS: clocks_report.lines([run for run in runs if run.kind is CLOCKS]),
        STAGED: launching_report.lines([run for run in runs if run.launch]),
    }
    return {title: rows for title, rows in found.items() if rows}


def sequences(runs: Sequence[Run]) -> str:
    """The recurrent runs: a table, and curves by task."""
    if not runs:
        return ""
    parts = [f"<h2>{RECURRENT}</h2>", table(recurrent_report.lines(runs))]
    for recipe, members in recurrent_report.by_task(runs).items():
        figure = recurrent_report.curves(recipe, members)
        alt = f"{recipe}: what each run has reached, over updates; the table above has the ends"
        parts.append(picture(escape(recipe), figure, recurrent_report.CAPTION, alt))
    return "\n".join(parts)


def two_clocks(runs: Sequence[Run]) -> str:
    """The runs on two clocks: a table, curves, schedules."""
    if not runs:
        return ""
    parts = [f"<h2>{TWO_CLOCKS}</h2>", table(clocks_report.lines(runs))]
    figure = clocks_report.curves([run for run in runs if run.points])
    parts.append(picture("Errors", figure, clocks_report.CURVES, "Both errors over digits; the table has the ends"))
    if figure := clocks_report.schedules(runs):
        alt = "A ticks at every step, B at every T-th; with Bprop both are updated every T² steps, else A every T"
        parts.append(picture("Schedules", figure, clocks_report.SCHEDULE, alt))
    return "\n".join(parts)


def staged(runs: Sequence[Run]) -> str:
    """The runs in stages: a table, and who is at work when."""
    if not runs:
        return ""
    parts = [f"<h2>{STAGED}</h2>", table(launching_report.lines(runs))]
    if figure := launching_report.timelines(runs):
        alt = "A row per stage, a box per piece of work; the gaps are waiting"
        parts.append(picture("Who is at work when", figure, launching_report.CAPTION, alt))
    return "\n".join(parts)
