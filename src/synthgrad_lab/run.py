"""Run a recipe: seeds, loop, curve, record, checkpoints, and going on after an interruption."""

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
from torch import Tensor

from synthgrad_lab import checkpoint
from synthgrad_lab.recipes import Settings
from synthgrad_lab.record import Record, environment
from synthgrad_lab.tasks import Images, load
from synthgrad_lab.timeline import timeline
from synthgrad_lab.training import Trainer

Progress = Callable[[int, float], None]
"""Called after each step with the steps done and the last validation error in percent."""


class Interrupted(Exception):
    """Ctrl-C: the run has stopped between two steps, with its record and checkpoint whole."""


class Diverged(ArithmeticError):
    """The loss is not a number any more."""


def run(settings: Settings, progress: Progress = lambda step, error: None) -> dict[str, Any]:
    """Start a run in a new folder and see it to its end.

    Args:
        settings: what to run.
        progress: called after each step.

    Returns:
        The result, as in the record's last line.

    Raises:
        FileExistsError: if the folder holds a run already.
        Interrupted: after Ctrl-C.
        Diverged: if the loss becomes NaN or infinite.
    """
    name = f"{settings.recipe}-{settings.method}-{settings.layers}x{settings.width}-seed{settings.seed}"
    folder = Path(settings.out or Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S-%f}-{name}")
    record = Record(folder)
    if record.path.exists():
        raise FileExistsError(
            f"{folder} holds a run already; resume={folder} goes on with it, or choose another out="
        )
    data = load(settings.data, settings.data_dir)
    if settings.batch > len(data.train_x):
        raise ValueError(f"batch={settings.batch}: there are {len(data.train_x)} training examples")
    torch.set_num_threads(settings.threads)
    trainer = Trainer(settings)
    folder.mkdir(parents=True, exist_ok=True)
    record.write("settings", settings=dataclasses.asdict(settings), environment=environment())
    return _train(settings, trainer, data, record, 0, 0.0, progress)


def resume(folder: Path, progress: Progress = lambda step, error: None) -> dict[str, Any]:
    """Go on with an interrupted run from its checkpoint; it ends as if it had not been interrupted.

    Args:
        folder: the run's folder.
        progress: called after each step.

    Returns:
        The result; a run that has ended is not run again.

    Raises:
        FileNotFoundError: if the folder holds no run, or no checkpoint yet.
    """
    settings = recorded(folder)
    record = Record(folder)
    if ended := record.read("result"):
        return ended[-1]
    state = checkpoint.load(folder)
    torch.set_num_threads(settings.threads)
    trainer = Trainer(settings)
    trainer.load_state_dict(state["trainer"])
    torch.set_rng_state(state["random"])
    record.rewind(state["step"])
    record.write("resumed", step=state["step"], environment=environment())
    data = load(settings.data, settings.data_dir)
    return _train(settings, trainer, data, record, state["step"], state["seconds"], progress)


def recorded(folder: Path) -> Settings:
    """The settings of the run in a folder.

    Raises:
        FileNotFoundError: if there is none.
    """
    record = Record(folder)
    lines = record.read("settings") if record.path.exists() else []
    if not lines:
        raise FileNotFoundError(f"{folder} holds no run (no {record.path.name} with its settings)")
    return Settings(**lines[0]["settings"])


def _train(
    s: Settings, trainer: Trainer, data: Images, record: Record, start: int, seconds: float, progress: Progress
) -> dict[str, Any]:
    from torch.utils.tensorboard import SummaryWriter  # slow to import, and needed only here

    data = data.to(s.device)
    probe = data.validation_x[: s.batch], data.validation_y[: s.batch]
    order = _batches(len(data.train_x), s, start)
    error, losses = math.nan, []

    def save(step: int) -> None:
        state = {"step": step, "seconds": seconds, "trainer": trainer.state_dict()}
        checkpoint.save(record.folder, {**state, "random": torch.get_rng_state()})

    with _interruptible() as interrupted, SummaryWriter(record.folder / "tensorboard", purge_step=start) as board:
        for step in range(start, s.steps):
            began = time.perf_counter()
            trainer.schedule(step)
            rows = next(order)
            loss = trainer.step(data.train_x[rows], data.train_y[rows]).item()
            seconds += time.perf_counter() - began
            losses.append(loss)
            done = step + 1
            if not math.isfinite(loss):
                record.write("diverged", step=done, loss=str(loss))
                raise Diverged(
                    f"the loss is {loss} at step {done}; the record is in {record.folder}. Try a lower lr."
                )
            if done % s.eval_every == 0 or done == s.steps:
                error = trainer.error(data.validation_x, data.validation_y)
                point = _point(trainer, probe, done, error, sum(losses) / len(losses), seconds)
                record.write("point", **point)
                _show(board, point)
                losses = []
            if interrupted.is_set() and done < s.steps:
                save(done)
                record.write("interrupted", step=done)
                raise Interrupted(f"stopped at step {done} of {s.steps}; go on with resume={record.folder}")
            if done % s.checkpoint_every == 0 or done == s.steps:
                save(done)
            progress(done, error)
    result = {
        **{key: getattr(s, key) for key in ("recipe", "method", "layers", "width", "steps", "seed", "data")},
        "test_error": trainer.error(data.test_x, data.test_y),
        "validation_error": error,
        "updates_per_layer": trainer.updates,
        "seconds": seconds,
        "seconds_per_step": seconds / max(s.steps, 1),
        "quality": {name: dataclasses.asdict(q) for name, q in trainer.quality(*probe).items()},
        "record": str(record.path),
    }
    record.write("timeline", events=timeline(trainer, data.train_x[: s.batch], data.train_y[: s.batch]))
    record.write("result", **result)
    return result


def _point(
    trainer: Trainer, probe: tuple[Tensor, Tensor], step: int, error: float, loss: float, seconds: float
) -> dict[str, Any]:
    quality = {name: dataclasses.asdict(q) for name, q in trainer.quality(*probe).items()}
    regression = [i.regression_loss.item() for i in trainer.interfaces]
    return {
        "step": step,
        "train_loss": loss,
        "validation_error": error,
        "quality": quality,
        "regression_loss": regression,
        "seconds": seconds,
    }


def _show(board: Any, point: dict[str, Any]) -> None:
    for key in ("train_loss", "validation_error"):
        board.add_scalar(key, point[key], point["step"])
    for name, quality in point["quality"].items():
        for measure, value in quality.items():
            board.add_scalar(f"{measure}/{name}", value, point["step"])


def _batches(examples: int, s: Settings, start: int) -> Iterator[Tensor]:
    """Rows of each step's batch: a new permutation per epoch, decided by seed and epoch alone."""
    per_epoch = examples // s.batch
    step, order, epoch = start, torch.empty(0), -1
    while True:
        if step // per_epoch != epoch:
            epoch = step // per_epoch
            order = torch.randperm(examples, generator=torch.Generator().manual_seed(s.seed * 1_000_003 + epoch))
        first = step % per_epoch * s.batch
        yield order[first : first + s.batch]
        step += 1


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """An event that Ctrl-C (or a polite kill) sets, so that a step is never cut in two; a second one kills."""
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
