"""Run a recipe in stages; its record, its folder and its result are like those of a run in one process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from synthgrad import checkpoint
from synthgrad.checkpoint import write_atomically
from synthgrad.stages import Status, Stopped, launch
from synthgrad.stages.launch import Watch
from synthgrad_lab.feedforward.precision import precision
from synthgrad_lab.feedforward.settings import Settings
from synthgrad_lab.running.jsonl import to_json
from synthgrad_lab.running.loop import Interrupted
from synthgrad_lab.running.record import Record, environment
from synthgrad_lab.running.run_folder import check_free, check_version, claim, ended, first_line, owned
from synthgrad_lab.running.settings import located
from synthgrad_lab.stages.settings import Launch, launch_from
from synthgrad_lab.stages.split import build_stage, cuts_for, errors, load_once
from synthgrad_lab.stages.trace import chrome

POINT_EVERY = 2.0
"""Seconds between two lines about the stages in the record."""
SHOWN_EVENTS = 600
"""Last events of each stage that the record keeps for a figure; trace.json has all."""


def run(s: Settings, how: Launch, watch: Watch = lambda statuses: None) -> dict[str, Any]:
    """Train a recipe in stages, in a new folder.

    ``watch`` is called several times a second with the stages' statuses. Returns the record's last line.

    Raises:
        FileExistsError: if the folder holds a run already.
        Interrupted: after Ctrl-C, with all stages' checkpoints written.
        StageFailed: if a stage fails after every restart.
        ValueError: if the recipe cannot be run in stages.
    """
    cuts = cuts_for(s, how)
    name = f"{datetime.now():%Y%m%d-%H%M%S-%f}-{s.label}-{len(cuts) + 1}-stages-seed{s.seed}"
    folder = Path(s.out or Path("runs") / name)
    check_free(folder)
    load_once(s.data, s.data_dir)  # one download, not one per stage
    with owned(folder):
        claim(folder)
        record = Record(folder)
        recipe = {"family": "stages", "settings": asdict(located(s)), "version": s.version}
        record.write("settings", **recipe, launch={**asdict(how), "cuts": cuts}, environment=environment())
        return _launch(s, how, cuts, record, False, watch)


def resume(folder: Path, watch: Watch = lambda statuses: None) -> dict[str, Any]:
    """Resume an interrupted launch from its stages' checkpoints; a simulation has none and starts again.

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
        step = 0 if how.on == "simulated" else _oldest_checkpoint(folder / "stages", len(cuts) + 1)
        record.rewind(step)
        record.write("resumed", step=step, environment=environment())
        return _launch(s, how, cuts, record, True, watch)


def _oldest_checkpoint(folder: Path, stages: int) -> int:
    """The step from which all stages can be resumed; 0 if one of them has no checkpoint."""
    places = [folder / f"stage-{k}" for k in range(stages)]
    for place in filter(Path.is_dir, places):
        with owned(place):  # stages keep running when their supervisor is killed
            pass
    found = [(place / checkpoint.NAME).exists() for place in places]
    return min(int(checkpoint.load(place)["counters"]["clock"]) for place in places) if all(found) else 0


def recorded(folder: Path) -> tuple[Settings, Launch, tuple[int, ...]]:
    """The settings, the launch and the cuts of the run in a folder; raises errors as ``resume``."""
    line = first_line(folder, staged=True)
    settings = Settings.from_record(line["settings"])
    check_version(folder, settings)
    return settings, launch_from(line["launch"]), tuple(line["launch"]["cuts"])


def _launch(
    s: Settings, how: Launch, cuts: tuple[int, ...], record: Record, again: bool, watch: Watch
) -> dict[str, Any]:
    watched, stages = _Recorded(record, watch), len(cuts) + 1
    build = partial(build_stage, replace(s, out=None), cuts)
    folder = None if how.on == "simulated" else record.folder / "stages"
    start = partial(launch, policy=how.policy, faults=how.faults(stages), address=how.address, hosts=how.hosts)
    try:
        outcome = start(build, stages, s.steps, how.on, folder=folder, resume=again, seed=s.seed, watch=watched)
    except Stopped:
        steps = [status.counters.clock for status in watched.last]
        record.write("interrupted", step=min(steps, default=0), steps=steps)
        where = f"at steps {', '.join(map(str, steps))} of {s.steps}"
        raise Interrupted(f"stopped {where}; resume with synthgrad launch --resume {record.folder}") from None
    if any(outcome.events):
        write_atomically(record.folder / "trace.json", to_json(chrome(outcome.events)).encode())
        shown = [[asdict(event) for event in events[-SHOWN_EVENTS:]] for events in outcome.events]
        record.write("timeline", events=shown)
    for restart in outcome.restarts:
        record.write("restart", **asdict(restart))
    # A simulation counts ticks instead of seconds.
    seconds = outcome.seconds or time.monotonic() - watched.began
    copied = ("recipe", "method", "layers", "width", "steps", "seed", "data", "unlock")
    counted = ("missed", "refused", "nonfinite")
    result = {
        **{name: getattr(s, name) for name in copied},
        "images": load_once(s.data, s.data_dir).source,
        "precision": precision(s),
        "stages": stages,
        "cuts": cuts,
        "on": how.on,
        **errors(s, cuts, outcome.states),
        "restarts": len(outcome.restarts),
        "steps_lost": sum(restart.steps_lost for restart in outcome.restarts),
        **{name: sum(getattr(c, name) for c in outcome.counters) for name in counted},
        "per_stage": [vars(c) for c in outcome.counters],
        "seconds": seconds,
        "record": str(record.path),
    }
    record.write("result", **result)
    return result


class _Recorded:
    """Passes statuses on to a watcher; every few seconds it writes them to the record, too."""

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
