"""The training of a feed-forward net on images, as the run's loop drives it."""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from synthgrad_lab.data import load
from synthgrad_lab.data.augment import augment
from synthgrad_lab.feedforward.methods.base import run_parts
from synthgrad_lab.feedforward.networks import IMAGES, network
from synthgrad_lab.feedforward.precision import precision
from synthgrad_lab.feedforward.profiling import StepEvent, peak, timeline
from synthgrad_lab.feedforward.settings import Settings
from synthgrad_lab.feedforward.trainer import Trainer


class Classification:
    """Images and a trainer; ``step`` draws the next batch.

    Raises:
        ValueError: if there are fewer images than a batch takes.
    """

    measure = "validation_error"

    def __init__(self, settings: Settings):
        self.settings = s = settings
        self.data = load(s.data, s.data_dir).to(s.run.device)
        if s.batch > (images := len(self.data.train_x)):
            raise ValueError(f"batch={s.batch}: there are {images} training images; choose a smaller batch")
        self.trainer = Trainer(s)
        self.probe = self.data.validation_x[: s.batch], self.data.validation_y[: s.batch]
        self.batch = self.data.train_x[: s.batch], self.data.train_y[: s.batch]

    def step(self, done: int) -> float | None:
        """Train on one batch, after ``done`` batches."""
        s = self.settings
        rows = rows_of(len(self.data.train_x), s, done)
        self.trainer.schedule(done)
        x = self.data.train_x[rows]
        loss = self.trainer.step(augment(x) if s.augment else x, self.data.train_y[rows])
        return None if loss is None else loss.item()

    def point(self) -> dict[str, Any]:
        """Validation error, and the quality of the synthetic gradients."""
        return {
            "validation_error": self.trainer.error(self.data.validation_x, self.data.validation_y),
            "quality": self._quality(),
            "regression_loss": [interface.regression_loss.item() for interface in self.trainer.interfaces],
        }

    def _quality(self) -> dict[str, dict[str, float]]:
        return {name: dataclasses.asdict(q) for name, q in self.trainer.quality(*self.probe).items()}

    def result(self, seconds: float, measure: float) -> dict[str, Any]:
        """The record's last line, with the error on the test images."""
        s = self.settings
        parameters, model_parameters = self.trainer.count_parameters()
        return {
            **{key: getattr(s, key) for key in ("recipe", "method", "layers", "width", "steps", "seed", "data")},
            "images": self.data.source,
            "precision": precision(s),
            "test_error": self.trainer.error(self.data.test_x, self.data.test_y),
            "validation_error": measure,
            "updates_per_layer": self.trainer.updates,
            "seconds": seconds,
            "seconds_per_step": seconds / s.steps,
            "peak_memory_mb": peak(self.trainer, *self.batch) / 2**20,
            "parameters": parameters,
            "model_parameters": model_parameters,
            "quality": self._quality(),
        }

    def events(self) -> list[StepEvent]:
        """The timeline of one step."""
        return timeline(self.trainer, *self.batch)

    def state_dict(self) -> dict[str, Any]:
        """The trainer's state."""
        return self.trainer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the trainer's state."""
        self.trainer.load_state_dict(state)


start = Classification


def download(settings: Settings) -> None:
    """Fetch the images into the cache."""
    load(settings.data, settings.data_dir)


def cost(s: Settings) -> float:
    """Estimated time of a run, up to a factor: the layers' multiplications, times a factor of the method."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        channels, side = IMAGES[s.data]
        run_parts(network(s), torch.empty(2, channels, side, side))
    forward = counter.get_total_flops() / 2 + 1e5  # per image; small nets spend time on more than multiplications
    return s.steps * s.batch * forward * {"no-bprop": 1.5, "bprop": 3}.get(s.method, 4)


def rows_of(examples: int, s: Settings, done: int) -> Tensor:
    """Rows of the next batch, after ``done`` batches; seed and epoch alone decide an epoch's permutation."""
    epoch, batch = divmod(done, examples // s.batch)
    return _order(examples, (s.seed * 1_000_003 + epoch) % 2**64)[batch * s.batch : (batch + 1) * s.batch]


@lru_cache(1)
def _order(examples: int, seed: int) -> Tensor:
    return torch.randperm(examples, generator=torch.Generator().manual_seed(seed))
