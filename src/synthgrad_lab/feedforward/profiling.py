"""The times of one step: each layer's forward pass, backward pass and update, in milliseconds."""

from __future__ import annotations

import copy
import time
from typing import TypedDict

import torch
from torch import Tensor

from synthgrad_lab.feedforward.trainer import Trainer
from synthgrad_lab.running.measure import allocated


class StepEvent(TypedDict):
    """One layer's work in a step, as records have it."""

    layer: int
    """From 1."""
    kind: str
    """forward; loss (the task's, or M's synthetic gradient for this layer); backward; fit (of M on the edge below this
    layer); update."""
    start: float
    """Milliseconds since the step began."""
    end: float


def timeline(trainer: Trainer, x: Tensor, y: Tensor, steps: int = 31) -> list[StepEvent]:
    """The events of one step on a batch, in order: the shortest of several, which the machine disturbed least.

    The steps are those of a copy of the trainer, and fewer if they take more than three seconds. On a GPU each event
    waits for the device.
    """
    before = torch.get_rng_state()
    subject = _TimedTrainer(copy.deepcopy(trainer))
    subject.step(x, y)
    began, timed = time.perf_counter(), []
    while len(timed) < min(3, steps) or (len(timed) < steps and time.perf_counter() - began < 3):
        timed.append(subject.step(x, y))
    torch.set_rng_state(before)
    return min((events for events in timed if events), key=lambda events: events[-1]["end"], default=[])


class _TimedTrainer:
    """A trainer that records an event whenever one of its layers has done something."""

    def __init__(self, trainer: Trainer):
        self.trainer = trainer
        self.events: list[StepEvent] = []
        self.began = self.mark = 0.0
        for k, part in enumerate(trainer.parts, start=1):
            part.register_forward_pre_hook(lambda module, inputs: self.tick())
            part.register_forward_hook(lambda module, inputs, output, k=k: self.event(k, "forward"))
            # A layer's backward pass has ended when its last parameter has its gradient.
            for parameter in part.parameters():
                parameter.register_post_accumulate_grad_hook(lambda p, k=k: self.event(k, "backward"))

    def now(self) -> float:
        if self.trainer.settings.run.device.startswith("cuda"):
            torch.cuda.synchronize()
        return 1000 * (time.perf_counter() - self.began)

    def tick(self) -> None:
        self.mark = self.now()

    def event(self, layer: int, kind: str) -> None:
        last = self.events[-1] if self.events else None
        if last and (last["layer"], last["kind"]) == (layer, kind):
            last["end"] = self.now()
        else:
            self.events.append({"layer": layer, "kind": kind, "start": self.mark, "end": self.now()})
        self.mark = self.events[-1]["end"]  # the next event starts here, unless something sets the mark again

    def step(self, x: Tensor, y: Tensor) -> list[StepEvent]:
        self.events, self.began = [], time.perf_counter()
        for layers, loss in self.trainer.losses(x, y):
            self.event(layers[-1] + 1, "loss")
            self.tick()
            loss.backward()
            if self.trainer.interfaces and layers[-1] > 0:
                self.event(layers[-1] + 1, "fit")
            for k in reversed(layers):
                self.tick()
                self.trainer.update(k)
                self.event(k + 1, "update")
        return self.events


def peak(trainer: Trainer, x: Tensor, y: Tensor) -> int:
    """Bytes at the highest point of one step of a copy, above what was allocated before it: activations, gradients."""
    random, trainer = torch.get_rng_state(), copy.deepcopy(trainer)
    for _ in trainer.parts:  # optimizers allocate their state; stale gradients reach the lowest layer
        trainer.step(x, y)
    try:
        if trainer.settings.run.device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            trainer.step(x, y)
            return torch.cuda.max_memory_allocated() - before
        return allocated(lambda: trainer.step(x, y))
    finally:
        torch.set_rng_state(random)
