"""Where a recipe's chain of layers is cut into stages."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch.utils.flop_counter import FlopCounterMode

from synthgrad_lab.feedforward.networks import IMAGES, network
from synthgrad_lab.feedforward.settings import INTERFACED, Settings
from synthgrad_lab.feedforward.trainer import Trainer
from synthgrad_lab.stages.settings import Launch


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
