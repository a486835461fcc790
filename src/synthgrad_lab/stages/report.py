"""The section of a report about runs in stages: a table, and the stages' timelines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from synthgrad.stages.outcome import StageEvent
from synthgrad_lab.feedforward.settings import LABELS
from synthgrad_lab.reporting.html_report import Section, picture
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
    panels: dict[str, Timeline] = {
        f"{_shown(run)['method']}, seed {run.settings['seed']}, {run.folder.name}": [
            [StageEvent(**event) for event in stage] for stage in cast(Any, run.events)
        ]
        for run in [run for run in runs if run.events][:_PANELS]
    }
    alt = "A row per stage, a box per piece of work; the gaps are waiting"
    blocks = [picture("Who is at work when", timelines(panels, _STEPS), CAPTION, alt)] if panels else []
    return Section("Runs in stages", lines(runs), blocks)


def lines(runs: Sequence[Run]) -> list[dict[str, str]]:
    """A row per run, with the settings that tell it from other runs of the same row."""
    rows, apart = [], set_apart(runs, lambda run: tuple(_shown(run).values()))
    for run, settings in apart:
        result = run.result or {}
        stages = result.get("per_stage", [])
        rows.append(
            {
                **_shown(run),
                **({"settings": settings} if any(text for _, text in apart) else {}),
                "seed": str(run.settings["seed"]),
                "state": run.state,
                "test error %": f"{result['test_error']:.2f}" if result else "",
                "seconds": f"{result['seconds']:.0f}" if result else "",
                "restarts": str(result.get("restarts", "")),
                "dropped": str(sum(stage["dropped"] for stage in stages)) if stages else "",
                "folder": str(run.folder),
            }
        )
    return rows


def _shown(run: Run) -> dict[str, str]:
    """What a row shows of a run's settings, and where its stages ran."""
    method, how = run.settings["method"], run.launch or {}
    return {
        "method": LABELS.get(method) or method,
        "layers": str(run.settings["layers"]),
        "stages": str(len(how.get("cuts", [])) + 1),
        "on": how.get("on", ""),
    }
