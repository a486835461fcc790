"""The part of a report that is about runs in stages: a table, and what each stage did when."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from synthgrad.stages.outcome import StageEvent
from synthgrad_lab.feedforward.summary import shown
from synthgrad_lab.reporting.runs import Run, set_apart
from synthgrad_lab.stages.trace import drawn, longest_step

CAPTION = """What each stage did when, at the end of a run, on the clock that all processes share. A box is work,
white is waiting: for a message from below, or for room above. trace.json in the run's folder has more of it, for
Perfetto."""
_PANELS = 4


def lines(runs: Sequence[Run]) -> list[dict[str, str]]:
    """A row per run, with the settings in which it differs from others that the row does not tell from it."""
    rows, apart = [], set_apart(runs, _shown)
    for run, settings in apart:
        s, how, result = run.settings, run.launch or {}, run.result or {}
        stages = result.get("per_stage", [])
        rows.append(
            {
                "method": shown(s["method"]),
                "layers": str(s["layers"]),
                "stages": str(len(how.get("cuts", [])) + 1),
                "on": how.get("on", ""),
                **({"settings": settings} if any(more for _, more in apart) else {}),
                "seed": str(s["seed"]),
                "state": run.state,
                "test error %": f"{result['test_error']:.2f}" if result else "",
                "seconds": f"{result['seconds']:.0f}" if result else "",
                "restarts": str(result.get("restarts", "")),
                "dropped": str(sum(told["dropped"] for told in stages)) if stages else "",
                "folder": str(run.folder),
            }
        )
    return rows


def _shown(run: Run) -> tuple[Any, ...]:
    how = run.launch or {}
    return run.settings["method"], run.settings["layers"], len(how.get("cuts", [])), how.get("on", "")


def timelines(runs: Sequence[Run]) -> Figure | None:
    """Of the first few runs that have one, a panel each."""
    panels: dict[str, Sequence[Sequence[StageEvent]]] = {
        f"{shown(run.settings['method'])}, seed {run.settings['seed']}, {run.folder.name}": [
            [StageEvent(**event) for event in stage] for stage in _stages(run)
        ]
        for run in runs
        if run.events
    }
    panels = dict([*panels.items()][:_PANELS])
    return drawn(panels, 6 * longest_step(panels)) if panels else None


def _stages(run: Run) -> list[list[dict[str, Any]]]:
    return run.events  # pyright: ignore[reportReturnType]
