"""Settings: nested frozen dataclasses, shared groups of them, and how they are varied, flattened and read back."""

from __future__ import annotations

import dataclasses
import importlib
import math
import os
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, Self

import tyro

from synthgrad_lab.running.ranges import Beta, Count, Positive, Seed, Threads, Weight, check_ranges

OWN = ("seed", "out", "data_dir", "run.threads", "run.device", "run.eval_every", "run.checkpoint_every", "epochs")
"""Settings of the single run: runs that differ in nothing else repeat one experiment. (Epochs count as steps.)"""
PLACES = ("out", "data_dir", "task.text")
"""Settings that are paths of one machine."""


class Checked:
    """A dataclass of settings whose numbers are checked against their ranges."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_ranges(self)


@dataclass(frozen=True)
class Optimizer(Checked):
    """Adam for the layers that learn the task."""

    lr: Weight = 1e-3
    """Learning rate."""
    decay: Literal["none", "cosine", "steps"] = "cosine"
    """How learning rates fall over the run: not at all; along a half cosine to zero; or, as in the paper, to a tenth
    after 60 % and 80 %."""


@dataclass(frozen=True)
class Model(Checked):
    """Gradient models, and the Adam that trains them."""

    hidden: Count = 64
    """Units, or filters, of each hidden layer."""
    lr: Weight = 1e-3
    """Learning rate."""
    beta1: Beta = 0.5
    """Adam's beta1: with more momentum, gradient models lag behind the layers that they must follow."""
    beta2: Beta = 0.99
    """Adam's beta2."""
    unit_factor: Positive = 32.0
    """A gradient model's unit, in root mean squares of the gradient; larger learns faster, and less finely."""


@dataclass(frozen=True)
class Run(Checked):
    """How often a run is measured and saved, and where it computes."""

    eval_every: Count = 250
    """Steps between points of the curve."""
    checkpoint_every: Count = 500
    """Steps between checkpoints."""
    threads: Threads = 1
    """Torch threads."""
    device: str = "cpu"
    """Where it computes: cpu, cuda, cuda:1, mps."""


class Training(Protocol):
    """A run's training, as the loop drives it: steps, now and then a point of the curve, a result at the end."""

    measure: str
    """Key of a point that shows progress."""

    def step(self, done: int) -> float | None:
        """Train one step, after ``done`` steps; returns its loss, if there was one."""
        ...

    def point(self) -> dict[str, Any]:
        """Measures for the curve, from validation data; ``quality`` holds those of each gradient model."""
        ...

    def result(self, seconds: float, measure: float) -> dict[str, Any]:
        """The record's last line."""
        ...

    def events(self) -> list[dict[str, Any]]:
        """The timeline of a step, where there is one to show."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that a later step depends on, except torch's own random state."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a ``state_dict``."""
        ...


@dataclass(frozen=True)
class Settings(Checked):
    """What the settings of every family have; a family's own class adds to it."""

    recipe: tyro.conf.Fixed[tyro.conf.Suppress[str]] = ""
    """The recipe that these settings come from."""
    method: str = ""
    """How the network learns."""
    steps: Count = 3000
    """Training steps."""
    seed: Seed = 0
    """Seed of the weights and the data."""
    data_dir: str | None = None
    """Folder with the data's files; without it the cache, else a download."""
    out: str | None = None
    """The run's folder; without it a new one under runs/."""
    optimizer: Optimizer = field(default_factory=Optimizer)
    model: Model = field(default_factory=Model)
    run: Run = field(default_factory=Run)

    versions: ClassVar[Mapping[str, int]] = {}
    """Version of each method's recipes, or of one recipe's (``"add dni"``), where it is not 1. Raise it when a change
    of the code gives equal settings another meaning: records of an older version then no longer count as today's."""

    @property
    def version(self) -> int:
        """Version of the recipe that gives these settings their meaning."""
        return self.version_for({"recipe": self.recipe, "method": self.method})

    @classmethod
    def version_for(cls, values: Mapping[str, Any]) -> int:
        """The same for recorded settings."""
        method = values["method"]
        return cls.versions.get(f"{values['recipe']} {method}", cls.versions.get(method, 1))

    @property
    def family(self) -> str:
        """Name of the family: the folder of the settings' module."""
        return type(self).__module__.split(".")[-2]

    @property
    def label(self) -> str:
        """A run's name, without its seed."""
        return f"{self.recipe}-{self.method}"

    @property
    def progress_format(self) -> str:
        """How a progress bar shows the measure."""
        return "{:.4g}"

    @property
    def data_key(self) -> tuple[str | None, ...]:
        """The data that the run needs: runs with equal keys need one download."""
        return (self.data_dir,)

    @property
    def training(self) -> Any:
        """The family's ``training.py``, beside the settings: ``start``; ``download`` and ``cost`` if it has them."""
        return importlib.import_module(f"{type(self).__module__.rpartition('.')[0]}.training")

    def start(self) -> Training:
        """A new training with these settings."""
        return self.training.start(self)

    def download(self) -> None:
        """Fetch the run's data into the cache, where it needs any."""
        getattr(self.training, "download", lambda settings: None)(self)

    def cost(self) -> float:
        """Estimated time of the run, up to a factor."""
        return getattr(self.training, "cost", lambda settings: settings.steps)(self)

    @classmethod
    def from_record(cls, values: Mapping[str, Any]) -> Self:
        """The settings that a record holds; a setting that is newer than the record has its default.

        Raises:
            ValueError: if the record holds a setting that no longer exists, or a value that is out of range.
        """
        return built(cls, values)


S = typing.TypeVar("S")


def vary(settings: S, changes: Mapping[str, Any]) -> S:
    """A copy with some settings changed, nested ones by dotted names: ``vary(s, {"steps": 10, "model.depth": 0})``."""
    own: dict[str, Any] = {}
    nested: dict[str, dict[str, Any]] = {}
    for name, value in changes.items():
        group, dot, rest = name.partition(".")
        if dot:
            nested.setdefault(group, {})[rest] = value
        else:
            own[name] = value
    own |= {group: vary(getattr(settings, group), more) for group, more in nested.items()}
    return dataclasses.replace(settings, **own)  # pyright: ignore[reportArgumentType, reportCallIssue]


def flat(settings: Any) -> dict[str, Any]:
    """Settings, or their record, by dotted name."""
    values: Any = settings if isinstance(settings, Mapping) else dataclasses.asdict(settings)
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= {f"{name}.{k}": v for k, v in flat(value).items()} if isinstance(value, dict) else {name: value}
    return found


def built(cls: type[S], values: Mapping[str, Any]) -> S:
    """A dataclass from nested values as JSON has them.

    Raises:
        ValueError: for a name that the class does not have.
    """
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # pyright: ignore[reportArgumentType]
    if unknown := sorted(values.keys() - fields.keys()):
        raise ValueError(f"recorded with settings that no longer exist: {', '.join(unknown)}")
    given = {}
    for name, value in values.items():
        hint = hints[name]
        if isinstance(value, Mapping) and dataclasses.is_dataclass(hint):
            value = built(hint, value)  # pyright: ignore[reportArgumentType]
        given[name] = tuple(value) if isinstance(value, list) else value
    return cls(**given)


def located(settings: S) -> S:
    """The same settings with absolute paths: a record is read from other working folders, too."""
    given = {name: value for name, value in flat(settings).items() if name in PLACES and value is not None}
    return vary(settings, {name: os.path.abspath(path) for name, path in given.items()})


def epochs_to_steps(epochs: float | None, examples: int, batch: int, steps: int) -> int:
    """The steps of these passes over the examples; ``steps`` where no epochs are given."""
    if epochs is None or not 0 < epochs < math.inf:
        return steps
    return max(1, round(epochs * (examples // max(batch, 1))))
