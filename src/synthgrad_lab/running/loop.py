"""The loop of a run: steps, curve, record, checkpoints; and resuming after an interruption."""

from __future__ import annotations

import dataclasses
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from synthgrad import checkpoint
from synthgrad_lab.running.record import Record, environment
from synthgrad_lab.running.run_folder import check_free, check_version, claim, ended, first_line, owned
from synthgrad_lab.running.settings import Settings, Training, located
from synthgrad_lab.running.stops import Diverged, Interrupted

Progress = Callable[[int, float], None]
"""Called after each step with the steps done and the last measure (for images the validation error in percent)."""


def run(settings: Settings, progress: Progress = lambda step, error: None) -> dict[str, Any]:
    """Run a recipe in a new folder, from its first step to its end.

    Args:
        settings: what to run.
        progress: called after each step.

    Returns:
        The result, as in the record's last line.

    Raises:
        FileExistsError: if the folder holds a run already.
        BlockingIOError: if another run has begun there meanwhile.
        Interrupted: after Ctrl-C.
        Diverged: if the loss becomes NaN or infinite.
    """
    name = f"{datetime.now():%Y%m%d-%H%M%S-%f}-{settings.label}-seed{settings.seed}"
    folder = Path(settings.out or Path("runs") / name)
    check_free(folder)
    torch.set_num_threads(settings.run.threads)
    try:
        torch.empty(0, device=settings.run.device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device={settings.run.device}: {str(error).splitlines()[0]}") from None
    training = settings.start()
    with owned(folder):
        claim(folder)  # once more: from here on no other run can begin there
        record = Record(folder)
        values = dataclasses.asdict(located(settings))
        record.write(
            "settings", family=settings.family, settings=values, version=settings.version, environment=environment()
        )
        return _train(settings, training, record, Loop(), progress)


def resume(folder: Path, settings: Settings, progress: Progress = lambda step, error: None) -> dict[str, Any]:
    """Resume an interrupted run from its checkpoint; it ends as if it had not been interrupted.

    A run that was stopped before its first checkpoint begins again at its first step.

    Args:
        folder: the run's folder.
        settings: as its record has them.
        progress: called after each step.

    Returns:
        The result; a run that has ended is not run again.

    Raises:
        FileNotFoundError: if the folder holds no run, or one in stages.
        BlockingIOError: if the run is under way.
        ValueError: if it was begun with another version of its recipe, or its checkpoint cannot be read.
    """
    first_line(folder)
    if result := ended(folder):
        return result
    with owned(folder):
        if result := ended(folder):  # meanwhile
            return result
        check_version(folder, settings)
        return _resumed(settings, folder, progress)


def _resumed(settings: Settings, folder: Path, progress: Progress) -> dict[str, Any]:
    record, loop = Record(folder), Loop()
    torch.set_num_threads(settings.run.threads)
    training = settings.start()
    if (folder / checkpoint.NAME).exists():
        try:
            state = checkpoint.load(folder)
        except ValueError as error:
            cure = f"without the file, --resume {folder} begins at the first step"
            raise ValueError(f"{str(error).partition(';')[0]}; {cure}") from None
        training.load_state_dict(state["trainer"])
        torch.set_rng_state(state["random"])
        loop = Loop(**state["loop"])
    record.rewind(loop.step)
    record.write("resumed", step=loop.step, environment=environment())
    return _train(settings, training, record, loop, progress)


@dataclasses.dataclass
class Loop:
    """How far a run is; kept in the checkpoint beside the weights."""

    step: int = 0
    """Steps done."""
    seconds: float = 0.0
    """Time spent in training steps, without evaluation and recording."""
    measure: float = math.nan
    """The last measure of progress, for images the validation error in percent."""
    losses: list[float] = dataclasses.field(default_factory=list)
    """Losses of the steps since the last point of the curve."""


def _train(s: Settings, training: Training, record: Record, loop: Loop, progress: Progress) -> dict[str, Any]:
    from torch.utils.tensorboard import SummaryWriter  # slow to import, and needed only here

    def save() -> None:
        board.flush()  # a checkpoint includes the curve up to here
        state = {"loop": dataclasses.asdict(loop), "trainer": training.state_dict()}
        checkpoint.save(record.folder, {**state, "random": torch.get_rng_state()})

    with (
        _interruptible() as interrupted,
        SummaryWriter(record.folder / "tensorboard", purge_step=loop.step + 1) as board,
    ):
        while loop.step < s.steps:
            began = time.perf_counter()
            loss = training.step(loop.step)
            if loss is not None:
                loop.losses.append(loss)
            loop.seconds += time.perf_counter() - began
            loop.step += 1
            if loop.losses and not math.isfinite(loop.losses[-1]):
                record.write("diverged", step=loop.step, loss=str(loop.losses[-1]))
                where = f"at step {loop.step}; the record is in {record.folder}"
                raise Diverged(f"the loss is {loop.losses[-1]} {where}. Try a lower --optimizer.lr.")
            if loop.step % s.run.eval_every == 0 or loop.step == s.steps:
                _point(training, loop, record, board)
            if loop.step == s.steps:
                break
            if loop.step % s.run.checkpoint_every == 0 or interrupted.is_set():
                save()
            if interrupted.is_set():
                record.write("interrupted", step=loop.step)
                where = f"at step {loop.step} of {s.steps}"
                raise Interrupted(f"stopped {where}; resume with --resume {record.folder}")
            progress(loop.step, loop.measure)
        save()
    result = {**training.result(loop.seconds, loop.measure), "record": str(record.path)}
    if events := training.events():
        record.write("timeline", events=events)
    record.write("result", **result)
    progress(loop.step, loop.measure)
    return result


def _point(training: Training, loop: Loop, record: Record, board: Any) -> None:
    """Add a point to the curve."""
    point = training.point()
    loop.measure = point[training.measure]
    loss = sum(loop.losses) / len(loop.losses) if loop.losses else math.nan
    record.write("point", step=loop.step, train_loss=loss, **point, seconds=loop.seconds)
    loop.losses = []
    curves = {"train_loss": loss, **{k: v for k, v in point.items() if isinstance(v, int | float)}}
    for name, measures in point.get("quality", {}).items():
        curves |= {f"{measure}/{name}": value for measure, value in measures.items()}
    for name, value in curves.items():
        board.add_scalar(name, value, loop.step)


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets, so that no step is cut in two; a second signal kills the run."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event  # signals belong to the main thread
        return
    kinds = (signal.SIGINT, signal.SIGTERM)
    before = {kind: signal.getsignal(kind) for kind in kinds}

    def handle(number: int, frame: Any) -> None:
        event.set()
        signal.signal(number, before[number])  # pyright: ignore[reportArgumentType]

    for kind in kinds:
        signal.signal(kind, handle)
    try:
        yield event
    finally:
        for kind in kinds:
            signal.signal(kind, before[kind])
