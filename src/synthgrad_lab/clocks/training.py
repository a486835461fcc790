"""Training of two networks on two clocks: a round, its measures, its state."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from synthgrad_lab.clocks.digits import moments
from synthgrad_lab.clocks.networks import two_networks
from synthgrad_lab.clocks.schedule import TickEvent, as_text, schedule
from synthgrad_lab.clocks.settings import Settings
from synthgrad_lab.data import load
from synthgrad_lab.running.optimizers import set_learning_rates

STREAMS = 250
"""Streams of an evaluation."""


def download(settings: Settings) -> None:
    """Fetch the digits into the cache."""
    load("mnist", settings.data_dir)


def cost(settings: Settings) -> float:
    """Estimated time of a run, up to a factor: the number of digits of a stream."""
    return settings.steps * settings.T**2


def show(settings: Settings) -> str:
    """The schedule of the first two rounds."""
    return as_text(schedule(settings))


class ClocksTraining:
    """Both networks, their optimizers, and the stream; a step is one round of T² digits."""

    measure = "odd_error"

    def __init__(self, settings: Settings):
        self.settings = s = settings
        self.data = load("mnist", s.data_dir).to(s.run.device)
        torch.manual_seed(s.seed)
        self.random = torch.Generator().manual_seed(s.seed)
        self.system, self.optimizers = two_networks(s)
        self.stream = self.system.stream(on_event=self._record)
        self.updates = {"A": 0, "B": 0}
        self.recorded: list[TickEvent] = []
        self.curve: list[list[float]] = []
        self.rounds = 0

    def _record(self, time: int, network: str, what: str) -> None:
        """Count updates, and keep the events of the first two rounds."""
        if what == "update":
            self.updates[network] += 1
        if time <= 2 * self.settings.T**2:
            self.recorded.append({"time": time, "network": network, "what": what})

    def step(self, done: int) -> float:
        """One round, after ``done`` rounds; returns B's loss in it."""
        s = self.settings
        self.rounds = done + 1
        for optimizer in self.optimizers:
            set_learning_rates(optimizer, s.optimizer.decay, done / s.steps)
        loss = 0.0
        for moment in moments(self.data.train_x, self.data.train_y, s.T, s.batch, self.random):
            outs = self.stream.step(moment)
            if moment.threes is not None:
                loss = F.cross_entropy(outs["B"], moment.threes).item()
        return loss

    @torch.no_grad()
    def errors(self, kind: str, rounds: int) -> dict[str, float]:
        """``odd_error`` and ``threes_error``: wrong answers in percent, on validation or test data."""
        x, y = getattr(self.data, f"{kind}_x"), getattr(self.data, f"{kind}_y")
        random = torch.Generator().manual_seed(10_000_001 if kind == "test" else 10_000_000)  # no run's own seed
        wrong: dict[str, list[Tensor]] = {"A": [], "B": []}
        self.system.eval()
        stream = self.system.stream()
        for _ in range(rounds):
            for moment in moments(x, y, self.settings.T, STREAMS, random):
                outs = stream.step(moment)
                for name, truth in (("A", moment.odd), ("B", moment.threes)):
                    if truth is not None:
                        wrong[name].append(outs[name].argmax(1) != truth)
        self.system.train()
        odd, threes = (100 * torch.cat(each).sum().item() / (len(each) * STREAMS) for each in wrong.values())
        return {"odd_error": odd, "threes_error": threes}

    def samples(self) -> int:
        """Digits seen so far."""
        return self.rounds * self.settings.T**2 * self.settings.batch

    def point(self) -> dict[str, Any]:
        """Errors on validation data, and the digits seen."""
        found = self.errors("validation", 8)
        self.curve.append([self.samples(), found["odd_error"], found["threes_error"]])
        return {**found, "samples": self.samples(), "quality": {}}

    def result(self, seconds: float, measure: float) -> dict[str, Any]:
        """The record's last line; evaluates on the test images."""
        return {
            **{key: getattr(self.settings, key) for key in ("recipe", "method", "T", "recurrent", "width", "seed")},
            **self.errors("test", 20),
            "validation": measure,
            "updates_a": self.updates["A"],
            "updates_b": self.updates["B"],
            "samples": self.samples(),
            "seconds": seconds,
            "parameters": sum(p.numel() for p in self.system.networks.parameters()),
            "model_parameters": sum(p.numel() for p in self.system.interfaces.parameters()),
            "curve": self.curve,
        }

    def events(self) -> list[TickEvent]:
        """Ticks, messages and updates of the first two rounds."""
        return self.recorded

    def state_dict(self) -> dict[str, Any]:
        """Everything that a later round depends on."""
        return {
            **{name: getattr(self, name).state_dict() for name in ("system", "stream")},
            **{name: getattr(self, name) for name in ("updates", "recorded", "curve", "rounds")},
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "random": self.random.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a ``state_dict``."""
        state = dict(state)
        self.system.load_state_dict(state.pop("system"))
        for optimizer, kept in zip(self.optimizers, state.pop("optimizers"), strict=True):
            optimizer.load_state_dict(kept)
        self.stream.load_state_dict(state.pop("stream"))
        self.random.set_state(state.pop("random"))
        for name, value in state.items():
            setattr(self, name, value)


start = ClocksTraining
