"""The times of one step in milliseconds: each layer's work, and the paper's locks, in which it waits for others."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
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
    with torch.random.fork_rng(devices=[]):
        subject = _TimedTrainer(copy.deepcopy(trainer))
        subject.step(x, y)
        began, timed = time.perf_counter(), []
        while len(timed) < min(3, steps) or (len(timed) < steps and time.perf_counter() - began < 3):
            timed.append(subject.step(x, y))
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


def locks(events: Sequence[StepEvent]) -> list[tuple[int, str, float, float]]:
    """The times of a step in which layers wait for other layers: (layer, lock, start, end) in ms.

    The forward lock lasts until the layer's forward pass starts; the update lock from the end of its forward pass, and
    of a loss of its own, until all layers above have run forwards; the backward lock from then until its backward pass
    starts. A layer whose backward pass starts before the layers above have run has neither of the last two.

    References:
        Jaderberg et al. 2017, section 1: forward, update and backward locking.
    """
    first = {(e["layer"], e["kind"]): e for e in reversed(events)}
    forwards = {layer: e for (layer, kind), e in first.items() if kind == "forward"}
    found = []
    for layer, forward in sorted(forwards.items()):
        found.append((layer, "forward lock", 0.0, forward["start"]))
        backward, loss = first.get((layer, "backward")), first.get((layer, "loss"))
        above = max((e["end"] for k, e in forwards.items() if k > layer), default=math.inf)
        if backward and backward["start"] >= above:
            ready = loss["end"] if loss and loss["end"] <= above else forward["end"]
            found += [(layer, "update lock", ready, above), (layer, "backward lock", above, backward["start"])]
    return found


def first_update(events: Sequence[StepEvent]) -> tuple[float, bool] | None:
    """The end of layer 1's update in ms, and whether it comes before layer 2 runs; None if it is not updated."""
    at = {(e["layer"], e["kind"]): e for e in reversed(events)}
    if not (update := at.get((1, "update"))):
        return None
    return update["end"], (2, "forward") in at and update["end"] <= at[2, "forward"]["start"]


def length(events: Sequence[StepEvent]) -> float:
    """The length of the step in ms; 0 without events."""
    return max((e["end"] for e in events), default=0.0)


def peak(trainer: Trainer, x: Tensor, y: Tensor) -> int:
    """Bytes at the highest point of one step of a copy, above what was allocated before it: activations, gradients."""
    trainer = copy.deepcopy(trainer)
    with torch.random.fork_rng(devices=[]):
        for _ in trainer.parts:  # optimizers allocate their state; stale gradients reach the lowest layer
            trainer.step(x, y)
        if trainer.settings.run.device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            trainer.step(x, y)
            return torch.cuda.max_memory_allocated() - before
        return allocated(lambda: trainer.step(x, y))
