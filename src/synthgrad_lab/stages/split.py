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

    Raises:
        ValueError: if the recipe cannot be run in stages, or not in these.
    """
    check_supported(s)
    cuts = cuts_of(s, s.layers if how.stages is None else how.stages, how.at)
    how.faults(len(cuts) + 1)
    return cuts


def check_supported(s: Settings) -> None:
    """Check that a recipe can be run in stages.

    Raises:
        ValueError: with what to do instead.
    """
    if s.method not in INTERFACED:
        raise ValueError(f"method={s.method} waits for other stages: method={' or '.join(INTERFACED)}")
    if s.unlock == "fused" or s.mixing.warm_up or s.p_update < 1 or any(s.mixing.lam):
        raise ValueError("stages learn without waiting: no unlock=fused, lam, warm_up or p_update")


def cuts_of(s: Settings, stages: int, at: Sequence[str] = ()) -> tuple[int, ...]:
    """The layers after which the chain is cut, counted from 1.

    Args:
        s: the recipe's settings.
        stages: number of stages; the most expensive one becomes as cheap as possible.
        at: instead, the messages that are cut, by the names that records give them: h1 is what layer 1 sends.

    Raises:
        ValueError: if there are fewer layers than stages, or no such message.
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
