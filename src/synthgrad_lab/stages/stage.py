"""A recipe's stage as the library runs it, and the whole chain made of trained stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from synthgrad import Interface
from synthgrad.stages import Stage
from synthgrad_lab.data import load
from synthgrad_lab.data.augment import augment
from synthgrad_lab.feedforward.methods.base import criterion
from synthgrad_lab.feedforward.settings import Settings
from synthgrad_lab.feedforward.trainer import Trainer
from synthgrad_lab.feedforward.training import rows_of
from synthgrad_lab.running.optimizers import adam, set_learning_rates

load_once = lru_cache(1)(load)
"""``load``, once per process: a simulation has all stages in one."""


def build_stage(s: Settings, cuts: tuple[int, ...], k: int) -> Stage:
    """Build stage k of a recipe: its layers as one part, decoupled from its neighbours; backprop inside.

    The weights are those that the recipe's run in one process starts from.

    Args:
        s: the recipe's settings.
        cuts: the layers after which it is cut, counted from 1.
        k: number of the stage, counted from 0.
    """
    trainer, first, last = Trainer(s), k == 0, k == len(cuts)
    part = _parts(trainer, cuts)[k]
    above: Interface | None = None if last else trainer.interfaces[cuts[k] - 1]
    below: Interface | None = None if first or s.unlock != "complete" else trainer.interfaces[cuts[k - 1] - 1]
    models: list[Any] = [above.gradient_model] if above is not None else []
    models += [below.input_model] if below is not None else []
    optimizer = adam(list(part.parameters()), [p for model in models for p in model.parameters()], s)
    return Stage(
        part=part,
        optimizer=optimizer,
        above=above,
        below=below,
        criterion=criterion if last else None,
        data=_data(s) if first or below is not None else None,
        schedule=lambda step: set_learning_rates(optimizer, s.optimizer.decay, step / s.steps),
        conditioned=s.method != "dni",
        patient=s.unlock != "complete",
        clip=s.optimizer.clip,
    )


def _data(s: Settings) -> Callable[[int], tuple[Tensor, Tensor]]:
    """Images and labels by step: the same, in the same order, as in a run in one process."""
    images = load_once(s.data, s.data_dir)

    def batch(step: int) -> tuple[Tensor, Tensor]:
        rows = rows_of(len(images.train_x), s, step)
        x = images.train_x[rows]
        return augment(x) if s.augment else x, images.train_y[rows]

    return batch


def assembled(s: Settings, cuts: tuple[int, ...], states: Sequence[dict[str, Any]]) -> Trainer:
    """A trainer with the stages' trained parts, to measure the whole chain."""
    trainer = Trainer(s)
    for part, state in zip(_parts(trainer, cuts), states, strict=True):
        part.load_state_dict(state["part"])
    return trainer


def errors(s: Settings, cuts: tuple[int, ...], states: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The whole chain's error on the test images and on the validation images, in percent."""
    trainer, images = assembled(s, cuts, states), load_once(s.data, s.data_dir).to(s.run.device)
    return {
        "test_error": trainer.error(images.test_x, images.test_y),
        "validation_error": trainer.error(images.validation_x, images.validation_y),
    }


def _parts(trainer: Trainer, cuts: tuple[int, ...]) -> list[nn.Module]:
    """Each stage's layers, as one module."""
    layers = trainer.parts
    return [layers[a] if b == a + 1 else nn.Sequential(*layers[a:b]) for a, b in pairwise((0, *cuts, len(layers)))]
