"""Stages for benchmarks; each is built in its own process, so the builders are functions of a module."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from synthgrad import Interface, Stage
from synthgrad.models import MLP
from synthgrad_lab.feedforward.networks import network
from synthgrad_lab.feedforward.settings import Settings
from synthgrad_lab.stages.bench.emulated import Emulated
from synthgrad_lab.stages.stage import build_stage


@dataclass(frozen=True)
class Sizes:
    """Sizes of an emulated chain."""

    stages: int
    forward_seconds: float
    batch: int = 64
    width: int = 64
    """Features of every message."""


def emulated_stage(sizes: Sizes, k: int) -> Stage:
    """Build stage k of a chain with emulated compute; everything else is real, gradient models, too."""
    torch.manual_seed(k)
    part, last = emulated_part(sizes, k, sizes.stages), k == sizes.stages - 1
    above = None if last else Interface(MLP(sizes.width, hidden=16))
    parameters = [*part.parameters(), *(above.parameters() if above is not None else [])]
    x = torch.randn(sizes.batch, sizes.width)
    return Stage(
        part=part,
        optimizer=torch.optim.Adam(parameters, lr=1e-3),
        above=above,
        criterion=F.mse_loss if last else None,
        data=(lambda step: (x, x)) if k == 0 else None,
        conditioned=False,
    )


def emulated_part(sizes: Sizes, k: int, of: int) -> nn.Module:
    """Build part k of ``of``; the time of the whole chain does not depend on their number."""
    return Emulated(sizes.width, sizes.forward_seconds * sizes.stages / of, sizes.batch)


def real_part(s: Settings, cuts: tuple[int, ...], k: int, of: int) -> nn.Module:
    """Build part k of a recipe's network, cut like its stages; its input is flat, as in ``Pipeline``."""
    bounds = (0, *cuts, s.layers)
    return nn.Sequential(*network(s)[bounds[k] : bounds[k + 1]])


def paced_stage(s: Settings, cuts: tuple[int, ...], seconds: float, k: int) -> Stage:
    """Build a recipe's stage that takes at least this many seconds per step, as if it had its own machine."""
    stage, last = build_stage(s, cuts, k), 0.0

    def pace(*call: Any) -> None:
        nonlocal last
        time.sleep(max(0.0, last + seconds - time.monotonic()))
        last = time.monotonic()

    stage.part.register_forward_hook(pace)
    return stage
