"""How much memory a training step needs beyond what was there before it."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from synthgrad_lab.training import Trainer


def peak(trainer: Trainer, x: Tensor, y: Tensor) -> int:
    """Bytes at the highest point of one step, above what was allocated before it: activations, gradients.

    Args:
        trainer: is left as it is.
        x: a batch.
        y: its labels.
    """
    random, trainer = torch.get_rng_state(), copy.deepcopy(trainer)
    for _ in trainer.parts:  # optimizers allocate their state, stale gradients come down
        trainer.step(x, y)
    try:
        if trainer.settings.device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            trainer.step(x, y)
            return torch.cuda.max_memory_allocated() - before
        return allocated(lambda: trainer.step(x, y))
    finally:
        torch.set_rng_state(random)


def allocated(step: Callable[[], object]) -> int:
    """Bytes at the highest point of a call on the CPU, above what was allocated before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    live = highest = 0
    # The profiler's raw events: every allocation and release, in order of time.
    events = profiler.profiler.kineto_results.events()  # pyright: ignore[reportOptionalMemberAccess]
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        live += event.nbytes()  # pyright: ignore[reportAttributeAccessIssue]
        highest = max(highest, live)
    return highest
