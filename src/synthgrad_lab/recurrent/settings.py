"""Settings of a recurrent run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import tyro

from synthgrad_lab.running import settings as common
from synthgrad_lab.running.ranges import Count, FromZero, Positive, Share, Weight

Method = Literal["frozen", "bptt", "local-loss", "dni", "cdni", "dni-aux", "bp-lambda"]
METHODS: tuple[Method, ...] = ("frozen", "bptt", "local-loss", "dni", "cdni", "dni-aux", "bp-lambda")
LABELS = {
    **{"frozen": "Read-out only", "bptt": "BPTT", "local-loss": "Local loss"},
    **{"dni": "DNI", "cdni": "cDNI", "dni-aux": "DNI + Aux", "bp-lambda": "BP(λ)"},
}
STREAMS = ("add", "delay", "char-lm")
"""Tasks without end: their state is carried on from chunk to chunk for the whole run."""
PROGRESS_FORMAT = {
    "add": "cross-entropy {:.4f}",
    **dict.fromkeys(("delay", "copy"), "longest {:.0f}"),
    "repeat-copy": "longest episode {:.0f}",
    "char-lm": "{:.3f} bits/character",
    "seq-mnist": "validation error {:.2f} %",
    "line-drawing": "squared error {:.4f}",
}


@dataclass(frozen=True)
class Task(common.Checked):
    """A task without settings of its own."""


@dataclass(frozen=True)
class Growing(Task):
    """A task that grows longer whenever it is solved."""

    first: Count = 1
    """Length to begin with."""
    grow: bool = True
    """Make the task longer whenever it is solved."""


@dataclass(frozen=True)
class Copying(Growing):
    """Copy vectors of bits."""

    bits: Count = 8
    """Bits of each vector."""


@dataclass(frozen=True)
class Text(Task):
    """Predict the next character of a text."""

    text: str | None = None
    """Any text file, or a folder with Penn Treebank's three word files."""


TASKS: dict[str, type[Task]] = {"delay": Growing, "copy": Copying, "repeat-copy": Copying, "char-lm": Text}
"""The settings of each recipe's task, where it has any."""


@dataclass(frozen=True)
class Optimizer(common.Optimizer):
    """Adam for the core and the read-out."""

    lr: Weight = 3e-4
    """Learning rate of the core."""
    read_out_lr: Weight | None = None
    """Learning rate of the read-out; without it lr. On a task that changes, a slow read-out sends wrong gradients for
    a long time."""
    decay: Literal["none", "cosine"] = "none"
    """How learning rates fall over the run."""
    clip: Positive | None = None
    """Largest norm of the gradient of core and read-out; longer ones are shortened."""
    warm_up: Share = 0.0
    """Share of the run in which the core's rate rises to its full size, so that M can follow from the start."""


@dataclass(frozen=True)
class Model(common.Model):
    """The gradient model M at a chunk's end: its inputs, its target, and the Adam that trains it."""

    depth: FromZero = 1
    """Hidden layers; 0 is linear."""
    form: Literal["regression", "critic"] = "regression"
    """critic: M is the gradient of a learned scalar, an estimate of the later losses; with cdni it is the loss of a
    head that guesses the targets to come."""
    anchor: Weight = 1.0
    """Weight, for cdni's critic, of that loss itself beside the gradients that arrive."""
    ahead: Count = 24
    """Targets of an episode that local-loss and cdni see, each in its place, while they are still to come."""
    sees: Share = 1.0
    """Share of the state's units that M sees: a fixed random mask."""
    context: bool = False
    """Let M see the chunk's last input, too."""
    hidden_only: bool = False
    """Send an LSTM's hidden state without its cell."""
    scale: Weight = 1.0
    """Factor on the synthetic gradient that the core learns from (the paper's 0.1); M's target is not scaled."""
    limit: Weight = 10.0
    """Largest synthetic gradient, in root mean squares of the gradient of a chunk's own losses at its start."""
    trust: bool = False
    """Scale the synthetic gradient by its regression slope on the target."""
    gamma: Share = 1.0
    """Discount of M's own prediction in its target."""
    lam: Share = 0.5
    """Share, for bp-lambda, of the true gradient that is passed on at every step inside a chunk."""
    traces: Share | None = None
    """Lambda of eligibility traces for M; costly, so for small states only."""
    aux_weight: Weight = 1.0
    """Size of the auxiliary gradient (dni-aux) over its error."""
    target_every: FromZero = 0
    """If above 0, the core learns from a frozen copy of M, refreshed every that many chunks."""
    use_until: Share = 1.0
    """Share of the run after which the synthetic gradient is no longer used (a lesion)."""
    learn_until: Share = 1.0
    """Share of the run after which M no longer learns (a lesion)."""


@dataclass(frozen=True)
class Settings(common.Settings):
    """Settings of a recurrent run; a step is one update."""

    recipe: tyro.conf.Fixed[tyro.conf.Suppress[str]] = "add"
    """The recipe that these settings come from."""
    method: Method = "dni"
    """frozen trains the read-out only, on the core as it starts. bptt is backpropagation through T steps, truncated
    there; local-loss adds, at each chunk's end, the loss of a head that guesses the targets to come. dni adds a
    synthetic gradient there; cdni one whose M sees the targets to come; dni-aux also the paper's auxiliary task;
    bp-lambda also mixes lam of the true gradient with M's at every step inside a chunk."""
    T: Count = 5
    """Steps of a chunk."""
    cell: Literal["rnn", "gru", "lstm"] = "rnn"
    """The recurrent core; rnn is tanh."""
    width: Count = 32
    """Units of the core."""
    layers: Count = 1
    """Layers of the core."""
    batch: Count = 100
    """Streams, or episodes, side by side."""
    steps: Count = 20_000
    """Training steps: updates."""
    per: Literal["chunk", "episode"] = "chunk"
    """When the core and the models are updated: after every chunk, or when an episode ends."""
    task: Task = field(default_factory=Task)
    optimizer: Optimizer = field(default_factory=Optimizer)
    model: Model = field(default_factory=Model)
    run: common.Run = field(default_factory=lambda: common.Run(eval_every=1000, checkpoint_every=5000))

    versions: ClassVar[Mapping[str, int]] = {"delay dni": 2}
    """delay dni 2: M's unit is measured on rows to which nothing is sent, in chunks drawn at random."""

    def __post_init__(self) -> None:
        """Raise ValueError for settings that cannot be run together."""
        super().__post_init__()
        m = self.model
        if self.per == "episode" and self.recipe in STREAMS:
            raise ValueError(f"per=episode: {self.recipe} is a stream without end; per=chunk")
        if self.method == "cdni" and m.context:
            raise ValueError("method=cdni: M's context is the targets to come, not inputs; model.context=false")
        if m.hidden_only and self.cell != "lstm":
            only = "only an LSTM has a cell beside its hidden state"
            raise ValueError(f"model.hidden_only: {only}, not cell={self.cell}")
        if m.traces is not None and (self.method not in ("dni", "dni-aux") or m.form == "critic" or m.sees < 1):
            raise ValueError(
                "model.traces needs a regression that sees the whole state: method=dni or dni-aux, "
                "model.form=regression, model.sees=1"
            )
        if self.method == "bp-lambda" and (m.scale, m.gamma) != (1, 1):
            raise ValueError("method=bp-lambda mixes by lam alone: model.scale=1, model.gamma=1")

    @property
    def synthetic(self) -> bool:
        """Whether there is a gradient model."""
        return self.method not in ("frozen", "bptt", "local-loss")

    @property
    def label(self) -> str:
        """A run's name, without its seed."""
        return f"{self.recipe}-{self.method}-{self.cell}{self.width}-T{self.T}"

    @property
    def progress_format(self) -> str:
        """How a progress bar shows the task's measure."""
        return PROGRESS_FORMAT.get(self.recipe, "{:.4g}")

    @property
    def data_key(self) -> tuple[str | None, ...]:
        """The task's data."""
        return self.recipe, getattr(self.task, "text", None), self.data_dir

    @classmethod
    def from_record(cls, values: Mapping[str, object]) -> Settings:
        """The settings that a record holds, with those of its recipe's task."""
        task = common.built(TASKS.get(str(values.get("recipe")), Task), values.get("task", {}))  # pyright: ignore
        return common.built(cls, {**values, "task": task})
