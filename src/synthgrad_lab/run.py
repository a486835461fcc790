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
from synthgrad_lab.config import Settings
from synthgrad_lab.memory import peak
from synthgrad_lab.precision import precision
from synthgrad_lab.record import Record, environment
from synthgrad_lab.tasks import Images, load
from synthgrad_lab.tasks.augment import augmented
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
    try:
        torch.empty(0, device=settings.device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device={settings.device}: {str(error).splitlines()[0]}") from None
    trainer = Trainer(settings)
    folder.mkdir(parents=True, exist_ok=True)
    record.write("settings", settings=dataclasses.asdict(settings), environment=environment())
    return _train(settings, trainer, data, record, Loop(), progress)


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
        return {key: value for key, value in ended[-1].items() if key != "kind"}
    state = checkpoint.load(folder)
    torch.set_num_threads(settings.threads)
    trainer = Trainer(settings)
    trainer.load_state_dict(state["trainer"])
    torch.set_rng_state(state["random"])
    data = load(settings.data, settings.data_dir)
    loop = Loop(**state["loop"])
    record.rewind(loop.step)
    record.write("resumed", step=loop.step, environment=environment())
    return _train(settings, trainer, data, record, loop, progress)


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


@dataclasses.dataclass
class Loop:
    """Where a run is, beside its weights; kept in the checkpoint."""

    step: int = 0
    """Steps done."""
    seconds: float = 0.0
    """Spent in training steps, evaluation and recording left out."""
    error: float = math.nan
    """The last validation error, in percent."""
    losses: list[float] = dataclasses.field(default_factory=list)
    """Of the steps since the last point of the curve."""


def _train(
    s: Settings, trainer: Trainer, data: Images, record: Record, loop: Loop, progress: Progress
) -> dict[str, Any]:
    from torch.utils.tensorboard import SummaryWriter  # slow to import, and needed only here

    data = data.to(s.device)
    probe = data.validation_x[: s.batch], data.validation_y[: s.batch]

    def save() -> None:
        state = {"loop": dataclasses.asdict(loop), "trainer": trainer.state_dict()}
        checkpoint.save(record.folder, {**state, "random": torch.get_rng_state()})

    with (
        _interruptible() as interrupted,
        SummaryWriter(record.folder / "tensorboard", purge_step=loop.step) as board,
    ):
        for rows in _batches(len(data.train_x), s, loop.step):
            began = time.perf_counter()
            trainer.schedule(loop.step)
            x = data.train_x[rows]
            loss = trainer.step(augmented(x) if s.augment else x, data.train_y[rows])
            if loss is not None:
                loop.losses.append(loss.item())
            loop.seconds += time.perf_counter() - began
            loop.step += 1
            if loop.losses and not math.isfinite(loop.losses[-1]):
                record.write("diverged", step=loop.step, loss=str(loop.losses[-1]))
                where = f"at step {loop.step}; the record is in {record.folder}"
                raise Diverged(f"the loss is {loop.losses[-1]} {where}. Try a lower lr.")
            if loop.step % s.eval_every == 0 or loop.step == s.steps:
                _point(trainer, data, probe, loop, record, board)
            if loop.step == s.steps:
                break
            if loop.step % s.checkpoint_every == 0 or interrupted.is_set():
                save()
            if interrupted.is_set():
                record.write("interrupted", step=loop.step)
                where = f"at step {loop.step} of {s.steps}"
                raise Interrupted(f"stopped {where}; go on with resume={record.folder}")
            progress(loop.step, loop.error)
        save()
    batch = data.train_x[: s.batch], data.train_y[: s.batch]
    parameters, model_parameters = trainer.parameters()
    result = {
        **{key: getattr(s, key) for key in ("recipe", "method", "layers", "width", "steps", "seed", "data")},
        "images": data.source,
        "precision": precision(s),
        "test_error": trainer.error(data.test_x, data.test_y),
        "validation_error": loop.error,
        "updates_per_layer": trainer.updates,
        "seconds": loop.seconds,
        "seconds_per_step": loop.seconds / s.steps,
        "peak_memory_mb": peak(trainer, *batch) / 2**20,
        "parameters": parameters,
        "model_parameters": model_parameters,
        "quality": {name: dataclasses.asdict(q) for name, q in trainer.quality(*probe).items()},
        "record": str(record.path),
    }
    record.write("timeline", events=timeline(trainer, *batch))
    record.write("result", **result)
    progress(loop.step, loop.error)
    return result


def _point(
    trainer: Trainer, data: Images, probe: tuple[Tensor, Tensor], loop: Loop, record: Record, board: Any
) -> None:
    """Add a point to the curve."""
    loop.error = trainer.error(data.validation_x, data.validation_y)
    loss = sum(loop.losses) / len(loop.losses) if loop.losses else math.nan
    curves = {"train_loss": loss, "validation_error": loop.error}
    quality = {name: dataclasses.asdict(q) for name, q in trainer.quality(*probe).items()}
    regression = [interface.regression_loss.item() for interface in trainer.interfaces]
    record.write(
        "point", step=loop.step, **curves, quality=quality, regression_loss=regression, seconds=loop.seconds
    )
    loop.losses = []
    for name, measures in quality.items():
        curves |= {f"{measure}/{name}": value for measure, value in measures.items()}
    for name, value in curves.items():
        board.add_scalar(name, value, loop.step)


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
