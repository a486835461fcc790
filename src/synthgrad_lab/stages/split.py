"""Where a recipe's chain of layers is cut into stages, a stage as the library runs it, and the trained chain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from synthgrad import Interface
from synthgrad.stages import Stage
from synthgrad_lab.data import load
from synthgrad_lab.data.augment import augment
from synthgrad_lab.feedforward.methods.base import criterion
from synthgrad_lab.feedforward.networks import IMAGES, network
from synthgrad_lab.feedforward.settings import INTERFACED, Settings
from synthgrad_lab.feedforward.trainer import Trainer
from synthgrad_lab.feedforward.training import rows_of
from synthgrad_lab.running.optimizers import adam, set_learning_rates
from synthgrad_lab.stages.settings import Launch

load_once = lru_cache(1)(load)
"""``load``, once per process: a simulation has all stages in one."""


def cuts_for(s: Settings, how: Launch) -> tuple[int, ...]:
    """The layers after which a launch cuts the recipe, counted from 1.

    Without names of messages (``at``) the most expensive stage becomes as cheap as possible.

    Raises:
        ValueError: if the recipe cannot be run in stages, or not in these: there are fewer layers than stages, no
            message of such a name, or no stage for a fault.
    """
    if s.method not in INTERFACED:
        raise ValueError(f"method={s.method} waits for other stages: method={' or '.join(INTERFACED)}")
    if s.unlock == "fused" or s.mixing.warm_up or s.p_update < 1 or any(s.mixing.lam):
        raise ValueError("stages learn without waiting: no unlock=fused, lam, warm_up or p_update")
    stages = s.layers if how.stages is None else how.stages
    known = [f"h{k}" for k in range(1, s.layers)]  # by the names that records give them
    if wrong := [name for name in how.at if name not in known]:
        raise ValueError(f"at={','.join(how.at)}: no message {wrong[0]}; there are: {', '.join(known)}")
    if not how.at and not 2 <= stages <= s.layers:
        raise ValueError(f"stages={stages}: a chain of {s.layers} layers has 2 to {s.layers} stages")
    cuts = tuple(sorted({known.index(name) + 1 for name in how.at})) or balanced(costs(s), stages)
    how.faults(len(cuts) + 1)
    return cuts


def costs(s: Settings) -> list[float]:
    """Each layer's floating-point operations in a forward pass of a batch."""
    channels, side = IMAGES[s.data]
    h, found = torch.zeros(s.batch, channels, side, side), []
    with torch.no_grad():
        for part in network(s):
            with FlopCounterMode(display=False) as counter:
                h = part(h)
            found.append(float(counter.get_total_flops()))
    return found


def balanced(weights: Sequence[float], stages: int) -> tuple[int, ...]:
    """Cuts that make the heaviest stage as light as possible: numbers of layers below each cut."""
    # best[j]: the best cuts of the first j layers into n stages; n grows by one per round.
    best: dict[int, tuple[int, ...]] = {j: () for j in range(1, len(weights) + 1)}
    for n in range(2, stages + 1):
        best = {
            j: min(((*best[i], i) for i in range(n - 1, j)), key=lambda cuts, j=j: _heaviest(weights[:j], cuts))
            for j in range(n, len(weights) + 1)
        }
    return best[len(weights)]


def _heaviest(weights: Sequence[float], cuts: tuple[int, ...]) -> float:
    return max(sum(weights[a:b]) for a, b in pairwise((0, *cuts, len(weights))))


def split_table(s: Settings, cuts: tuple[int, ...]) -> list[dict[str, str]]:
    """A row per stage: its layers, its share of the arithmetic, its parameters and those of the model above it."""
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
    parts = {"test": (images.test_x, images.test_y), "validation": (images.validation_x, images.validation_y)}
    return {f"{name}_error": trainer.error(x, y) for name, (x, y) in parts.items()}


def _parts(trainer: Trainer, cuts: tuple[int, ...]) -> list[nn.Module]:
    """Each stage's layers, as one module."""
    layers = trainer.parts
    return [layers[a] if b == a + 1 else nn.Sequential(*layers[a:b]) for a, b in pairwise((0, *cuts, len(layers)))]
