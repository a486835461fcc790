"""A recipe's chain cut into stages, and each stage as the library runs it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from synthgrad import Interface
from synthgrad.stages.stage import Stage
from synthgrad_lab.data import load
from synthgrad_lab.data.augment import augmented
from synthgrad_lab.feedforward.methods.base import criterion
from synthgrad_lab.feedforward.networks import IMAGES, network
from synthgrad_lab.feedforward.settings import INTERFACED, Settings
from synthgrad_lab.feedforward.trainer import Trainer
from synthgrad_lab.feedforward.training import rows_of
from synthgrad_lab.running.optimizers import adam, decayed


def build_stage(s: Settings, cuts: tuple[int, ...], k: int) -> Stage:
    """Stage k of a recipe: its layers as one part, decoupled from its neighbours; backprop inside.

    The weights are those that the recipe's run in one process starts from.

    Args:
        s: the recipe's settings.
        cuts: the layers after which it is cut, from 1; see ``cuts_of``.
        k: which stage, from 0.
    """
    trainer, first, last = Trainer(s), k == 0, k == len(cuts)
    bounds = (0, *cuts, s.layers)
    layers = trainer.parts[bounds[k] : bounds[k + 1]]
    part = layers[0] if len(layers) == 1 else nn.Sequential(*layers)
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
        data=Data(s) if first or below is not None else None,
        schedule=partial(_schedule, optimizer, s),
        conditioned=s.method != "dni",
        patient=s.unlock != "complete",
        clip=s.optimizer.clip,
    )


def _schedule(optimizer: torch.optim.Optimizer, s: Settings, step: int) -> None:
    decayed(optimizer, s.optimizer.decay, step / s.steps)


images_of = lru_cache(1)(load)
"""A process that simulates all stages holds the images once."""


class Data:
    """Images and labels of a step: the same, in the same order, as in a run in one process."""

    def __init__(self, s: Settings):
        self.settings = s
        images = images_of(s.data, s.data_dir)
        self.x, self.y = images.train_x, images.train_y

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """The batch of a step."""
        rows = rows_of(len(self.x), self.settings, step)
        x = self.x[rows]
        return augmented(x) if self.settings.augment else x, self.y[rows]


def cuts_of(s: Settings, stages: int, at: Sequence[str] = ()) -> tuple[int, ...]:
    """The layers, from 1, after which the chain is cut.

    Args:
        s: the recipe's settings.
        stages: into how many; the cuts are where the most expensive stage costs least.
        at: instead, the messages that are cut, by the names that records give them: h1 is what layer 1 sends.

    Raises:
        ValueError: if there are not so many layers, or no such message.
    """
    if at:
        known = [f"h{k}" for k in range(1, s.layers)]
        if wrong := [name for name in at if name not in known]:
            raise ValueError(f"at={','.join(at)}: no message {wrong[0]}; there are: {', '.join(known)}")
        return tuple(sorted({known.index(name) + 1 for name in at}))
    if not 2 <= stages <= s.layers:
        raise ValueError(f"stages={stages}: a chain of {s.layers} layers has 2 to {s.layers} stages")
    return balanced(costs(s), stages)


def costs(s: Settings) -> list[float]:
    """Of each layer, floating-point operations of a forward pass over a batch."""
    channels, side = IMAGES[s.data]
    h, found = torch.zeros(s.batch, channels, side, side), []
    with torch.no_grad():
        for part in network(s):
            with FlopCounterMode(display=False) as counter:
                h = part(h)
            found.append(float(counter.get_total_flops()))
    return found


def balanced(weights: Sequence[float], stages: int) -> tuple[int, ...]:
    """Where to cut so that the heaviest of the stages is lightest: after so many, from 1."""
    # best[j]: the best cuts of the first j into as many as have been come to.
    best: dict[int, tuple[int, ...]] = {j: () for j in range(1, len(weights) + 1)}
    for n in range(2, stages + 1):
        best = {
            j: min(((*best[i], i) for i in range(n - 1, j)), key=lambda cuts, j=j: _heaviest(weights[:j], cuts))
            for j in range(n, len(weights) + 1)
        }
    return best[len(weights)]


def _heaviest(weights: Sequence[float], cuts: tuple[int, ...]) -> float:
    return max(sum(weights[a:b]) for a, b in pairwise((0, *cuts, len(weights))))


def refuse(s: Settings) -> None:
    """Refuse what only a run in one process can do.

    Raises:
        ValueError: with what to do instead.
    """
    if s.method not in INTERFACED:
        raise ValueError(f"method={s.method} waits for other stages: method={' or '.join(INTERFACED)}")
    if s.unlock == "fused" or s.mixing.warm_up or s.p_update < 1 or any(s.mixing.lam):
        raise ValueError("stages learn without waiting: no unlock=fused, lam, warmup or p_update")


def assembled(s: Settings, cuts: tuple[int, ...], states: Sequence[dict[str, Any]]) -> Trainer:
    """A trainer with the stages' parts, to measure the whole chain."""
    trainer, bounds = Trainer(s), (0, *cuts, s.layers)
    for (a, b), state in zip(pairwise(bounds), states, strict=True):
        layers = trainer.parts[a:b]
        (layers[0] if len(layers) == 1 else nn.Sequential(*layers)).load_state_dict(state["part"])
    return trainer
