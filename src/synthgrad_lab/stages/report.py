"""The section of a report about runs in stages: a table, and the stages' timelines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from synthgrad.stages.outcome import StageEvent
from synthgrad_lab.feedforward.settings import LABELS
from synthgrad_lab.reporting.html_report import Block, Section, picture
from synthgrad_lab.reporting.runs import Run, set_apart
from synthgrad_lab.stages.figures import timelines
from synthgrad_lab.stages.trace import Timeline

CAPTION = """What each stage did when, at the end of a run, on the clock that all processes share. A box is work,
white is waiting: for a message from below, or for room above. trace.json in the run's folder has more of it, for
Perfetto."""
_PANELS, _STEPS = 4, 6


def section(runs: Sequence[Run], **options: Any) -> Section | None:
    """The section about these runs; None if there is none."""
    if not runs:
        return None
    blocks: list[Block] = []
    panels: dict[str, Timeline] = {
        f"{_method(run)}, seed {run.settings['seed']}, {run.folder.name}": _timeline(run)
        for run in [run for run in runs if run.events][:_PANELS]
    }
    if panels:
        alt = "A row per stage, a box per piece of work; the gaps are waiting"
        blocks.append(picture("Who is at work when", timelines(panels, _STEPS), CAPTION, alt))
    return Section("Runs in stages", lines(runs), blocks)


def lines(runs: Sequence[Run]) -> list[dict[str, str]]:
    """A row per run, with the settings that tell it from other runs of the same row."""
    rows, apart = [], set_apart(runs, _shown)
    for run, settings in apart:
        s, result = run.settings, run.result or {}
        stages = result.get("per_stage", [])
        _, _, count, on = _shown(run)
        rows.append(
            {
                "method": _method(run),
                "layers": str(s["layers"]),
                "stages": str(count),
                "on": on,
                **({"settings": settings} if any(text for _, text in apart) else {}),
                "seed": str(s["seed"]),
                "state": run.state,
                "test error %": f"{result['test_error']:.2f}" if result else "",
                "seconds": f"{result['seconds']:.0f}" if result else "",
                "restarts": str(result.get("restarts", "")),
                "dropped": str(sum(stage["dropped"] for stage in stages)) if stages else "",
                "folder": str(run.folder),
            }
        )
    return rows


def _shown(run: Run) -> tuple[str, int, int, str]:
    """What a row shows of a run's settings: method, layers, stages, and where they ran."""
    how = run.launch or {}
    return run.settings["method"], run.settings["layers"], len(how.get("cuts", [])) + 1, how.get("on", "")


def _method(run: Run) -> str:
    method = run.settings["method"]
    return LABELS.get(method) or method


def _timeline(run: Run) -> Timeline:
    events: Any = run.events  # a list per stage
    return [[StageEvent(**event) for event in stage] for stage in events]
