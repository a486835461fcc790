"""All that decides a recurrent run, with a word about each setting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from synthgrad_lab.running.ranges import refuse_outside

Method = Literal["frozen", "bptt", "local", "dni", "cdni", "dni-aux", "bp-lambda"]
METHODS: tuple[Method, ...] = ("frozen", "bptt", "local", "dni", "cdni", "dni-aux", "bp-lambda")
SHOWN = {
    **{"frozen": "Read-out only", "bptt": "BPTT", "local": "Local loss"},
    **{"dni": "DNI", "cdni": "cDNI", "dni-aux": "DNI + Aux", "bp-lambda": "BP(λ)"},
}
VERSIONS: dict[str, int] = {"delay dni": 2}
"""The version of each method's recipes; 1 where none is given. For delay 2:
M's unit is measured on rows to which nothing is sent, in chunks drawn at random."""
STREAMS = ("add", "delay", "char-lm")
"""Tasks that never end: their state is carried on for ever."""

TOLD = {
    **dict.fromkeys(("add",), "cross-entropy {:.4f}"),
    **dict.fromkeys(("delay", "copy"), "longest {:.0f}"),
    "repeat-copy": "longest episode {:.0f}",
    "char-lm": "{:.3f} bits/character",
    "seq-mnist": "validation error {:.2f} %",
    "line-drawing": "squared error {:.4f}",
}


@dataclass(frozen=True)
class Settings:
    """All that decides a recurrent run."""

    recipe: str = "add"
    """The recipe that these settings come from."""
    method: Method = "dni"
    """frozen trains the read-out only, on the core as it starts. bptt is backpropagation through T steps,
    truncated there; local adds the loss of a head that guesses the targets to come at each chunk's end. dni adds a
    synthetic gradient there, cdni one whose M sees the targets to come, dni-aux also the paper's auxiliary task,
    bp-lambda also mixes lam of the true gradient with M's at every step inside a chunk."""
    T: int = 5
    """Steps of a chunk."""
    cell: Literal["rnn", "gru", "lstm"] = "rnn"
    """The recurrent core; rnn is tanh."""
    units: int = 32
    """Units of the core."""
    layers: int = 1
    """Layers of the core."""
    batch: int = 100
    """Streams, or episodes, side by side."""
    updates: int = 20_000
    """Training steps."""
    per: Literal["chunk", "episode"] = "chunk"
    """How often core and models are updated: after every chunk, or when an episode ends."""
    lr: float = 3e-4
    """Adam's learning rate for the core."""
    read_out_lr: float | None = None
    """The same for the read-out; none: lr. Where a task changes, a slow one goes on sending wrong gradients."""
    clip: float | None = None
    """The largest norm of the gradient of core and read-out; longer ones are shortened."""
    warm_up: float = 0.0
    """Share of the run in which the core's rate rises to its full size, so that M can follow from the start."""
    decay: Literal["none", "cosine"] = "none"
    """How learning rates fall over the run."""
    model_lr: float = 1e-3
    """Adam's learning rate for the gradient models."""
    model_hidden: int = 64
    """Units of each hidden layer of a gradient model."""
    model_depth: int = 1
    """Hidden layers of the same; 0 is linear."""
    model_form: Literal["regression", "critic"] = "regression"
    """critic: M is the gradient of a learned scalar, its guess of the later losses; with cdni the loss of a head
    that guesses the targets to come."""
    model_anchor: float = 1.0
    """Of cdni's critic: weight of that loss itself beside the gradients that arrive."""
    ahead: int = 24
    """Of local and cdni: so many of an episode's targets are seen, each in its place, while they are to come."""
    model_beta1: float = 0.5
    """Adam's beta1 for the gradient models: with more momentum they lag behind the core that they must follow."""
    model_beta2: float = 0.99
    """Adam's beta2 for the gradient models."""
    model_sees: float = 1.0
    """Share of the state's units that M sees: a fixed random mask."""
    model_context: bool = False
    """Let M see the chunk's last input, too."""
    unit_factor: float = 32.0
    """M's unit in root mean squares of the gradient; larger learns faster, and less finely."""
    hidden_only: bool = False
    """Of an LSTM, send the hidden state without its cell."""
    scale: float = 1.0
    """Factor on the synthetic gradient where the core consumes it (the paper's 0.1); never on M's target."""
    limit: float = 10.0
    """The largest synthetic gradient, in root mean squares of what a chunk's own losses send down to its start."""
    trust: bool = False
    """Let the synthetic gradient count for what it has proved to be worth: its slope against its target."""
    gamma: float = 1.0
    """Discount of M's own answer in its target."""
    lam: float = 0.5
    """Of bp-lambda: share of the true gradient that is passed on at every step inside a chunk."""
    traces: float | None = None
    """Eligibility traces for M with this lambda; costly, for small states."""
    aux_weight: float = 1.0
    """Of dni-aux: size of the auxiliary gradient over its error."""
    target_every: int = 0
    """The core learns from a copy of M, taken anew after so many chunks; 0 is no copy."""
    use_until: float = 1.0
    """Share of the run after which the synthetic gradient is no longer used (a lesion)."""
    learn_until: float = 1.0
    """Share of the run after which M no longer learns (a lesion)."""
    bits: int = 8
    """Of copy and repeat-copy: bits of each vector."""
    first: int = 1
    """Of delay, copy and repeat-copy: the length to begin with."""
    grow: bool = True
    """Of delay, copy and repeat-copy: make the task longer whenever it is solved."""
    text: str | None = None
    """Of char-lm: any text file, or a folder with Penn Treebank's three word files."""
    data_dir: str | None = None
    """Of seq-mnist: a folder with MNIST's files; else the cache, else a download."""
    seed: int = 0
    """Seeds the weights and the data."""
    eval_every: int = 1000
    """Updates between points of the curve."""
    checkpoint_every: int = 5000
    """Updates between checkpoints."""
    threads: int = 1
    """Torch threads."""
    device: str = "cpu"
    """Where it runs: cpu, cuda, cuda:1, mps."""
    out: str | None = None
    """The run's folder; the default is a new one under runs/."""

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        refuse_outside(self)
        if self.per == "episode" and self.recipe in STREAMS:
            raise ValueError(f"per=episode: {self.recipe} is a stream without end; per=chunk")
        if self.method == "cdni" and self.model_context:
            raise ValueError("method=cdni: M's context is the targets to come; model_context=false")
        if self.hidden_only and self.cell != "lstm":
            raise ValueError(
                f"hidden_only=true: only an LSTM has a cell beside its hidden state, not cell={self.cell}"
            )
        if self.traces is not None and (
            self.method not in ("dni", "dni-aux") or self.model_form == "critic" or self.model_sees < 1
        ):
            raise ValueError(
                "traces want a regression that sees all: method=dni or dni-aux, model_form=regression, model_sees=1"
            )
        if self.method == "bp-lambda" and (self.scale, self.gamma) != (1, 1):
            raise ValueError("method=bp-lambda weighs true and synthetic gradients by lam alone: scale=1 gamma=1")

    @property
    def synthetic(self) -> bool:
        """Whether there is a gradient model."""
        return self.method not in ("frozen", "bptt", "local")

    @property
    def told(self) -> str:
        """How a progress bar tells what the run has reached."""
        return TOLD.get(self.recipe, "{:.4g}")

    @property
    def label(self) -> str:
        """A run's name, without its seed."""
        return f"{self.recipe}-{self.method}-{self.cell}{self.units}-T{self.T}"

    @property
    def steps(self) -> int:
        """What the run's loop counts."""
        return self.updates
