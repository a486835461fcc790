"""Settings of a run of two networks on two clocks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import tyro

from synthgrad_lab.running import settings as common
from synthgrad_lab.running.ranges import Count, FromTwo, Weight

Method = Literal["bprop", "cut", "dni", "cdni"]
METHODS: tuple[Method, ...] = ("bprop", "cut", "dni", "cdni")
LABELS = {"bprop": "Bprop", "cut": "Cut", "dni": "DNI", "cdni": "cDNI"}


@dataclass(frozen=True)
class Model(common.Model):
    """The gradient models, and the Adam that trains them."""

    hidden: Count = 128
    """Units of a gradient model's hidden layer."""
    lr: Weight = 3e-3
    """Learning rate."""
    scale: Weight = 10.0
    """Factor on the message's synthetic gradient, beside which A has a loss of its own (the paper's 10)."""


@dataclass(frozen=True)
class Run(common.Run):
    """How often a run is measured and saved, and where it computes."""

    eval_every: Count = 50
    """Rounds between points of the curve."""
    checkpoint_every: Count = 250
    """Rounds between checkpoints."""


@dataclass(frozen=True)
class Settings(common.Settings):
    """Settings of a run of two networks on two clocks; a step is a round."""

    recipe: tyro.conf.Fixed[tyro.conf.Suppress[str]] = "clocks"
    """The recipe that these settings come from."""
    method: Method = "dni"
    """bprop trains both end to end, one update per T² digits. With the others A is updated every T digits: cut lets no
    gradient of B reach A, dni puts a synthetic one in its place, cdni conditions it on the label: how many 3s A has
    seen in its last T digits."""
    T: Count = 4
    """A answers and sends every T digits, B answers every T of A's messages."""
    recurrent: Literal["truncate", "dni"] = "truncate"
    """What replaces, at an update, the later losses of a network's own state: nothing, or a synthetic gradient."""
    width: Count = 128
    """Units of both LSTMs, of A's two encoding layers and of the message."""
    batch: FromTwo = 64
    """Streams of digits side by side."""
    steps: Count = 1500
    """Rounds of T² digits per stream; each ends with an answer of B's."""
    model: Model = field(default_factory=Model)
    run: Run = field(default_factory=Run)

    @property
    def label(self) -> str:
        """A run's name, without its seed."""
        return f"{self.recipe}-{self.method}-T{self.T}"

    @property
    def progress_format(self) -> str:
        """How a progress bar shows A's error."""
        return "odd digits miscounted {:.2f} %"

    @property
    def data_key(self) -> tuple[str | None, ...]:
        """The digits."""
        return "mnist", self.data_dir
