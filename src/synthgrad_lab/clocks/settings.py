"""All that decides a run of two networks on two clocks, with a word about each setting."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from synthgrad_lab.running.ranges import refuse_outside

Method = Literal["bprop", "cut", "dni", "cdni"]
METHODS: tuple[Method, ...] = ("bprop", "cut", "dni", "cdni")
SHOWN = {"bprop": "Bprop", "cut": "Cut", "dni": "DNI", "cdni": "cDNI"}

VERSIONS: dict[str, int] = {}
"""The version of each method's recipes; 1 where none is given. See ``synthgrad_lab.feedforward.settings``."""


@dataclass(frozen=True)
class Settings:
    """All that decides a run of two networks on two clocks."""

    recipe: str = "clocks"
    """The recipe that these settings come from."""
    method: Method = "dni"
    """bprop trains both end to end, one update per T² steps. With the others A is updated every T steps: cut lets
    no gradient of B reach A, dni puts a synthetic one in its place, cdni conditions that on the label: how many
    3s A has seen in its last T digits."""
    T: int = 4
    """A sends and answers every T steps, B every T of A's messages."""
    recurrent: Literal["truncate", "dni"] = "truncate"
    """What stands at an update for the later losses of a network's own state: nothing, or a synthetic gradient."""
    units: int = 128
    """Of both LSTMs, of A's two encoding layers and of the message."""
    batch: int = 64
    """Streams of digits side by side."""
    steps: int = 1500
    """Rounds of T² digits per stream; each ends with an answer of B's."""
    lr: float = 1e-3
    """Adam's learning rate for both networks."""
    decay: Literal["none", "cosine"] = "cosine"
    """How learning rates fall over the run."""
    model_lr: float = 3e-3
    """Adam's learning rate for the gradient models."""
    model_hidden: int = 128
    """Units of a gradient model's hidden layer."""
    model_beta1: float = 0.5
    """Adam's beta1 for the gradient models."""
    model_beta2: float = 0.99
    """Adam's beta2 for the gradient models."""
    unit_factor: float = 32.0
    """M's unit in root mean squares of the gradient; larger learns faster, and less finely."""
    scale: float = 10.0
    """Factor on the message's synthetic gradient, beside which A has a loss of its own (the paper's 10)."""
    data_dir: str | None = None
    """A folder with MNIST's files; else the cache, else a download."""
    seed: int = 0
    """Seeds the weights and the data."""
    eval_every: int = 50
    """Rounds between points of the curve."""
    checkpoint_every: int = 250
    """Rounds between checkpoints."""
    threads: int = 1
    """Torch threads."""
    device: str = "cpu"
    """Where it runs: cpu, cuda, cuda:1, mps."""
    out: str | None = None
    """The run's folder; the default is a new one under runs/."""

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        refuse_outside(self, {"batch": (2, math.inf)})

    told = "odd digits miscounted {:.2f} %"
    """How a progress bar tells what the run has reached."""

    @property
    def label(self) -> str:
        """A run's name, without its seed."""
        return f"{self.recipe}-{self.method}-T{self.T}"


def clocks(method: Method = "dni") -> Settings:
    """MNIST digits in a stream: A counts the odd ones of every T, B, told by A, the 3s of every T². Errors in %."""
    return Settings(method=method)


RECIPES = {"clocks": clocks}
