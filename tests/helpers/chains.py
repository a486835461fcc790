"""Small chains that other processes can build: float64, width 5, batch 8, data that depend on the step alone."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthgrad import Interface, completely_unlocked, unlocked
from synthgrad.models import MLP
from synthgrad.stages import Outcome
from synthgrad.stages.stage import Stage

WIDTH, BATCH, CLASSES = 5, 8, 3


def data(step: int) -> tuple[Tensor, Tensor]:
    """Inputs and labels of a step."""
    random = torch.Generator().manual_seed(step)
    x = torch.randn(BATCH, WIDTH, dtype=torch.float64, generator=random)
    return x, torch.randint(CLASSES, (BATCH,), generator=random)


def build(
    k: int,
    stages: int = 3,
    complete: bool = False,
    pause: float = 0.0,
    slow: Mapping[int, float] | None = None,
    seen: Callable[[int, int], None] = lambda k, step: None,
) -> Stage:
    """Stage k: a layer, and models with random weights.

    Args:
        k: the stage.
        stages: the number of stages.
        complete: whether stages have input models.
        pause: seconds before each step.
        slow: the same for single stages.
        seen: called with k and the step's number before each step.
    """
    torch.manual_seed(k)
    first, last = k == 0, k == stages - 1
    layer = nn.Linear(WIDTH, CLASSES) if last else nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh())
    part = layer.double()
    gradient_model = warm(MLP(WIDTH, hidden=4, context=CLASSES))
    above = None if last else Interface(gradient_model).double()
    # The gradient model of the interface below is in the stage below; here is only its input model.
    input_model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()).double()
    below = Interface(lambda h, context: h * torch.nan, input_model) if complete and not first else None
    learnt = [part, *([gradient_model] if above else []), *([input_model] if below else [])]
    return Stage(
        part=part,
        optimizer=torch.optim.Adam([p for module in learnt for p in module.parameters()], lr=0.01),
        above=above,
        below=below,
        criterion=F.cross_entropy if last else None,
        data=data if first or complete else None,
        schedule=partial(_before, k, (slow or {}).get(k, pause), seen),
        patient=not complete,
    )


def warm(model: MLP) -> MLP:
    for parameter in model.double().parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def _before(k: int, pause: float, seen: Callable[[int, int], None], step: int) -> None:
    time.sleep(pause)
    seen(k, step)


def failing(k: int, stage: int, at: int, **settings: Any) -> Stage:
    """A chain in which one stage raises at every step from some step on."""
    return build(k, seen=partial(_fail, stage, at), **settings)


def _fail(stage: int, at: int, k: int, step: int) -> None:
    if k == stage and step >= at:
        raise LookupError("no such thing")


def unbuildable(k: int, stage: int, how: str) -> Stage:
    """A chain in which one stage cannot be built: the function raises, or its process dies."""
    if k == stage and how == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if k == stage:
        raise LookupError(f"there is no stage {k}")
    return build(k)


def learnt(steps: int, stages: int = 3, complete: bool = False) -> list[Tensor]:
    """The parameters of the same chain after training in one loop, without stages."""
    built = [build(k, stages, complete) for k in range(stages)]
    parts, interfaces = [stage.part for stage in built], [stage.above for stage in built if stage.above]
    for interface, stage in zip(interfaces, built[1:], strict=True):
        interface.input_model = stage.below.input_model if stage.below else None
    optimizers = []
    for k, part in enumerate(parts):
        below = [interfaces[k - 1].gradient_model] if k else []
        above = [interfaces[k].input_model] if complete and k < stages - 1 else []
        own = [p for module in (part, *below, *above) for p in module.parameters()]  # pyright: ignore
        optimizers.append(torch.optim.Adam(own, lr=0.01))
    for step in range(steps):
        x, y = data(step)
        run = completely_unlocked if complete else unlocked
        for k, loss in run(parts, interfaces, x, lambda out, y=y: F.cross_entropy(out, y), y):
            optimizers[k].zero_grad()
            loss.backward()
            optimizers[k].step()
    return parameters(built)


def parameters(built: Sequence[Stage]) -> list[Tensor]:
    """The parameters of parts and models, in a fixed order."""
    found = []
    for stage in built:
        models = [stage.above and stage.above.gradient_model, stage.below and stage.below.input_model]
        found += [p.detach().clone() for module in (stage.part, *filter(None, models)) for p in module.parameters()]
    return found


def parameters_of(outcome: Outcome, complete: bool = False) -> list[Tensor]:
    """The parameters in the outcome of a launch, in the same order."""
    stages = len(outcome.states)
    built = [build(k, stages, complete) for k in range(stages)]
    for stage, state in zip(built, outcome.states, strict=True):
        stage.load_state_dict(state)
    return parameters(built)
