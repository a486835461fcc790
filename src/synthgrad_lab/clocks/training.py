"""Training of two networks on two clocks: a round, its measures, its state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from synthgrad import Clocks, Interface, RecurrentInterface
from synthgrad.models import MLP
from synthgrad_lab.clocks.digits import moments
from synthgrad_lab.clocks.networks import A, B
from synthgrad_lab.clocks.schedule import event
from synthgrad_lab.clocks.settings import Settings
from synthgrad_lab.data import load
from synthgrad_lab.recurrent.tasks.base import held_out
from synthgrad_lab.running.optimizers import adam, decayed

STREAMS = 250
"""Of an evaluation."""


class TwoClocks:
    """Both networks, their optimizers, and the stream; ``step`` is one round of T² digits."""

    measure = "odd_error"

    def __init__(self, settings: Settings):
        self.settings = s = settings
        self.data = load("mnist", s.data_dir).to(s.run.device)
        torch.manual_seed(s.seed)
        self.random = torch.Generator().manual_seed(s.seed)
        self.system, self.optimizers = system(s)
        self.stream = self.system.stream(on_event=self._heard)
        self.updates = {"A": 0, "B": 0}
        self.heard: list[dict[str, Any]] = []
        self.curve: list[list[float]] = []
        self.rounds = 0

    def _heard(self, time: int, network: str, what: str) -> None:
        if what == "update":
            self.updates[network] += 1
        if time <= 2 * self.settings.T**2:
            self.heard.append(event(time, network, what))

    def step(self, done: int) -> float:
        """One round, after so many; B's loss in it."""
        s = self.settings
        self.rounds = done + 1
        for optimizer in self.optimizers:
            decayed(optimizer, s.optimizer.decay, done / s.steps)
        loss = 0.0
        for moment in moments(self.data.train_x, self.data.train_y, s.T, s.batch, self.random):
            outs = self.stream.step(moment)
            if moment.threes is not None:
                loss = F.cross_entropy(outs["B"], moment.threes).item()
        return loss

    @torch.no_grad()
    def errors(self, kind: str, rounds: int) -> dict[str, float]:
        """``odd_error`` and ``threes_error``: how many answers are wrong, in percent, on data held out."""
        x, y = getattr(self.data, f"{kind}_x"), getattr(self.data, f"{kind}_y")
        random, wrong, asked = held_out(kind == "test"), [0, 0], [0, 0]
        self.system.eval()
        stream = self.system.stream()
        for _ in range(rounds):
            for moment in moments(x, y, self.settings.T, STREAMS, random):
                outs = stream.step(moment)
                for k, (name, truth) in enumerate((("A", moment.odd), ("B", moment.threes))):
                    if truth is not None:
                        wrong[k] += int((outs[name].argmax(1) != truth).sum())
                        asked[k] += len(truth)
        self.system.train()
        return {name: 100 * wrong[k] / asked[k] for k, name in enumerate(("odd_error", "threes_error"))}

    def samples(self) -> int:
        """Digits seen so far."""
        return self.rounds * self.settings.T**2 * self.settings.batch

    def point(self) -> dict[str, Any]:
        """Errors on validation data, over the samples seen."""
        found = self.errors("validation", 8)
        self.curve.append([self.samples(), found["odd_error"], found["threes_error"]])
        return {**found, "samples": self.samples(), "quality": {}}

    def result(self, seconds: float, measure: float) -> dict[str, Any]:
        """What the record's last line says; reads the test images."""
        s = self.settings
        parts = self.system.networks, self.system.interfaces
        networks, models = (sum(p.numel() for p in part.parameters()) for part in parts)
        return {
            **{key: getattr(s, key) for key in ("recipe", "method", "T", "recurrent", "units", "seed")},
            **self.errors("test", 20),
            "validation": measure,
            "updates_a": self.updates["A"],
            "updates_b": self.updates["B"],
            "samples": self.samples(),
            "seconds": seconds,
            "parameters": networks,
            "model_parameters": models,
            "curve": self.curve,
        }

    def events(self) -> list[dict[str, Any]]:
        """Who ticked, sent and was updated when in the first two rounds."""
        return self.heard

    def state_dict(self) -> dict[str, Any]:
        """All that a later round depends on."""
        return {
            "system": self.system.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "stream": self.stream.state_dict(),
            "random": self.random.get_state(),
            **{name: getattr(self, name) for name in ("updates", "heard", "curve", "rounds")},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a ``state_dict``."""
        state = dict(state)
        self.system.load_state_dict(state.pop("system"))
        for optimizer, kept in zip(self.optimizers, state.pop("optimizers"), strict=True):
            optimizer.load_state_dict(kept)
        self.stream.load_state_dict(state.pop("stream"))
        self.random.set_state(state.pop("random"))
        for name, value in state.items():
            setattr(self, name, value)


def on_noise(s: Settings, heard: Callable[[int, str, str], None] | None = None) -> Callable[[], None]:
    """A new system on random images; each call is one round."""
    stream = system(s)[0].stream(on_event=heard)
    random = torch.Generator().manual_seed(s.seed)
    x, y = torch.rand(500, 1, 28, 28, generator=random), torch.randint(0, 10, (500,), generator=random)

    def one_round() -> None:
        for moment in moments(x, y, s.T, s.batch, random):
            stream.step(moment)

    return one_round


def system(s: Settings) -> tuple[Clocks, list[torch.optim.Adam]]:
    """The two networks as the method joins them; A's and B's optimizers."""
    a, b = A(s.T, s.width).to(s.run.device), B(s.T, s.width).to(s.run.device)

    def interface(features: int, context: int = 0, scale: float = 1.0) -> Interface:
        model = MLP(features, s.model.hidden, 1, context).to(s.run.device)
        return Interface(model, unit_factor=s.model.unit_factor, scale=scale).to(s.run.device)

    def later() -> RecurrentInterface | None:
        return RecurrentInterface(interface(2 * s.width)) if s.recurrent == "dni" else None

    context = s.T + 1 if s.method == "cdni" else 0
    message = interface(s.width, context, s.model.scale) if s.method in ("dni", "cdni") else None
    found, optimizers = Clocks(), []
    for name, net, every, update, model in (
        ("A", a, 1, s.T**2 if s.method == "bprop" else s.T, None),
        ("B", b, s.T, s.T, message),
    ):
        recurrent = later()
        models = [p for m in (recurrent, model) if m is not None for p in m.parameters()]
        optimizers.append(adam(list(net.parameters()), models, s))
        found.add(name, net, every, update, optimizers[-1], recurrent)
    found.connect("A", "B", message, cut=s.method == "cut")
    return found, optimizers
