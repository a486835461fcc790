"""Launch a recipe in stages: one record, one folder, one result, as ``run`` has them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from synthgrad import checkpoint
from synthgrad.checkpoint import write_atomically
from synthgrad.stages import Outcome, Status, Stopped, launch
from synthgrad_lab.feedforward.precision import precision
from synthgrad_lab.feedforward.settings import Settings
from synthgrad_lab.feedforward.trainer import Trainer
from synthgrad_lab.running.jsonl import to_json
from synthgrad_lab.running.loop import Interrupted
from synthgrad_lab.running.record import Record, environment
from synthgrad_lab.running.run_folder import claim, ended, first_line, owned, refuse_taken
from synthgrad_lab.running.settings import located
from synthgrad_lab.running.versions import version_of
from synthgrad_lab.stages.settings import Launch, launch_from
from synthgrad_lab.stages.split import assembled, build_stage, costs, cuts_of, images_of, refuse
from synthgrad_lab.stages.trace import chrome

Watch = Callable[[Sequence[Status]], None]
POINT_EVERY = 2.0
"""Seconds between two lines about the stages in the record."""


def run(s: Settings, how: Launch, watch: Watch = lambda statuses: None) -> dict[str, Any]:
    """Train a recipe in stages, in a new folder.

    Args:
        s: the recipe's settings.
        how: the stages.
        watch: called several times a second.

    Returns:
        The result, as in the record's last line.

    Raises:
        FileExistsError: if the folder holds a run already.
        Interrupted: after Ctrl-C, with all stages' checkpoints written.
        StageFailed: if a stage fails every time.
        ValueError: if the recipe cannot be run in stages.
    """
    cuts = cuts_for(s, how)
    name = f"{datetime.now():%Y%m%d-%H%M%S-%f}-{s.label}-{len(cuts) + 1}-stages-seed{s.seed}"
    folder = Path(s.out or Path("runs") / name)
    refuse_taken(folder)
    images_of(s.data, s.data_dir)  # fetched once, not by every stage
    with owned(folder):
        claim(folder)
        record, settings = Record(folder), asdict(located(s))
        told = {"settings": settings, "recipe_version": version_of(settings, launched=True)}
        record.write("settings", **told, launch={**asdict(how), "cuts": cuts}, environment=environment())
        return _launch(s, how, cuts, record, False, watch)


def cuts_for(s: Settings, how: Launch) -> tuple[int, ...]:
    """The layers after which a launch cuts the recipe; see ``cuts_of``.

    Raises:
        ValueError: if the recipe cannot be run in stages, or not in these.
    """
    refuse(s)
    cuts = cuts_of(s, s.layers if how.stages is None else how.stages, how.at)
    how.faults(len(cuts) + 1)
    return cuts


def resume(folder: Path, watch: Watch = lambda statuses: None) -> dict[str, Any]:
    """Go on with an interrupted launch from its stages' checkpoints; a simulation begins again, it has none.

    Raises:
        FileNotFoundError: if the folder holds no launch, or a run in one process.
        BlockingIOError: if the run, or one of its stages, is under way.
        ValueError: if it was begun with another version of its recipe.
    """
    s, how, cuts = recorded(folder)
    if result := ended(folder):
        return result
    with owned(folder):
        if result := ended(folder):  # meanwhile
            return result
        record = Record(folder)
        step = 0 if how.on == "simulated" else _reached(folder / "stages", len(cuts) + 1)
        record.rewind(step)
        record.write("resumed", step=step, environment=environment())
        return _launch(s, how, cuts, record, True, watch)


def _reached(folder: Path, stages: int) -> int:
    """The step from which all stages go on: that of the oldest of their checkpoints.

    Raises:
        BlockingIOError: if a stage is still at work.
    """
    places = [folder / f"stage-{k}" for k in range(stages)]
    for place in filter(Path.is_dir, places):
        with owned(place):  # stages go on when their supervisor is killed
            pass
    found = [(place / checkpoint.NAME).exists() for place in places]
    return min(int(checkpoint.load(place)["counters"]["clock"]) for place in places) if all(found) else 0


def recorded(folder: Path) -> tuple[Settings, Launch, tuple[int, ...]]:
    """The settings, the launch and the cuts of the run in a folder.

    Raises:
        FileNotFoundError: if there is none, or one in one process.
        ValueError: if it was begun with another version of its recipe.
    """
    line = first_line(folder, staged=True)
    values = dict(line["launch"])
    cuts = tuple(values.pop("cuts"))
    return Settings(**line["settings"]), launch_from(values), cuts


def _launch(
    s: Settings, how: Launch, cuts: tuple[int, ...], record: Record, again: bool, watch: Watch
) -> dict[str, Any]:
    watched, began = _Recorded(record, watch), time.monotonic()
    try:
        outcome = launch(
            partial(build_stage, replace(s, out=None), cuts),
            len(cuts) + 1,
            s.steps,
            how.on,
            folder=None if how.on == "simulated" else record.folder / "stages",
            resume=again,
            policy=how.policy,
            faults=how.faults(len(cuts) + 1),
            seed=s.seed,
            address=how.address,
            hosts=how.hosts,
            watch=watched,
        )
    except Stopped:
        steps = [status.counters.clock for status in watched.last]
        record.write("interrupted", step=min(steps, default=0), steps=steps)
        where = f"at steps {', '.join(map(str, steps))} of {s.steps}"
        raise Interrupted(f"stopped {where}; go on with synthgrad launch resume={record.folder}") from None
    if any(outcome.events):
        write_atomically(record.folder / "trace.json", to_json(chrome(outcome.events)).encode())
        shown = [[asdict(event) for event in events[-600:]] for events in outcome.events]
        record.write("timeline", events=shown)
    for restart in outcome.restarts:
        record.write("restart", **asdict(restart))
    # A simulation counts ticks; what it took is the clock's.
    seconds = outcome.seconds or time.monotonic() - began
    result = {**_result(s, how, cuts, outcome), "seconds": seconds, "record": str(record.path)}
    record.write("result", **result)
    return result


class _Recorded:
    """Passes the statuses on, and writes a line of them now and then."""

    def __init__(self, record: Record, watch: Watch):
        self.record, self.watch = record, watch
        self.began = self.wrote = time.monotonic()
        self.last: Sequence[Status] = ()

    def __call__(self, statuses: Sequence[Status]) -> None:
        self.last = statuses
        self.watch(statuses)
        now = time.monotonic()
        if now - self.wrote > POINT_EVERY:
            self.wrote = now
            stages = [{"state": status.state, **vars(status.counters)} for status in statuses]
            step = min(status.counters.clock for status in statuses)
            self.record.write("point", step=step, seconds=now - self.began, stages=stages)


def _result(s: Settings, how: Launch, cuts: tuple[int, ...], outcome: Outcome) -> dict[str, Any]:
    """What the record's last line says; reads the test images."""
    trainer = assembled(s, cuts, outcome.states)
    images = images_of(s.data, s.data_dir).to(s.run.device)
    return {
        **{
            key: getattr(s, key)
            for key in ("recipe", "method", "layers", "width", "steps", "seed", "data", "unlock")
        },
        "images": images.source,
        "precision": precision(s),
        "stages": len(cuts) + 1,
        "cuts": cuts,
        "on": how.on,
        "test_error": trainer.error(images.test_x, images.test_y),
        "validation_error": trainer.error(images.validation_x, images.validation_y),
        "restarts": len(outcome.restarts),
        "steps_lost": sum(restart.steps_lost for restart in outcome.restarts),
        **{
            name: sum(getattr(told, name) for told in outcome.counters)
            for name in ("missed", "refused", "nonfinite")
        },
        "per_stage": [vars(told) for told in outcome.counters],
    }


def split_shown(s: Settings, cuts: tuple[int, ...]) -> list[dict[str, str]]:
    """Each stage's layers, its share of the arithmetic, its parameters and those of the model above it."""
    weights, trainer = costs(s), Trainer(s)
    rows = []
    for k, (a, b) in enumerate(pairwise((0, *cuts, s.layers))):
        above = list(trainer.interfaces[b - 1].gradient_model.parameters()) if b < s.layers else []
        rows.append(
            {
                "stage": str(k),
                "layers": f"{a + 1}" if b == a + 1 else f"{a + 1} to {b}",
                "arithmetic": f"{sum(weights[a:b]) / sum(weights):.0%}",
                "parameters": f"{sum(p.numel() for part in trainer.parts[a:b] for p in part.parameters()):,}",
                "model above": f"{sum(p.numel() for p in above):,}",
            }
        )
    return rows
