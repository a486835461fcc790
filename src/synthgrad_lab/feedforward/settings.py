"""All that decides a feed-forward run, with a word about each setting."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from synthgrad_lab.running.ranges import refuse_outside

Method = Literal["no-bprop", "bprop", "local-loss", "stale", "feedback-alignment", "dni", "cdni", "critic"]
METHODS: tuple[Method, ...] = (
    "no-bprop", "bprop", "local-loss", "stale", "feedback-alignment", "dni", "cdni", "critic",
)  # fmt: skip
PAPER: tuple[Method, ...] = ("no-bprop", "bprop", "dni", "cdni")
INTERFACED = ("dni", "cdni", "critic")
SHOWN = {
    "no-bprop": "No Bprop",
    "bprop": "Bprop",
    "local-loss": "Local loss",
    "stale": "Stale gradients",
    "feedback-alignment": "Feedback alignment",
    "dni": "DNI",
    "cdni": "cDNI",
    "critic": "Critic",
}
VERSIONS: dict[str, int] = {"local-loss": 2}
"""The version of each method's recipes, or of one recipe's (``"add dni"``); 1 where none is given. Raise it when
a change of the code gives equal settings another meaning: records of another version are then no longer taken for
today's. Local loss 2: the critic's heads, where there was a linear read-out."""
TRAINING = {"mnist": 55_000, "fashion-mnist": 55_000, "cifar10": 45_000}
"""Training examples of each data set; what is left of the published training set is for validation."""


@dataclass(frozen=True)
class Settings:
    """All that decides a feed-forward run."""

    recipe: str = "mnist-fcn"
    """The recipe that these settings come from."""
    method: Method = "cdni"
    """no-bprop trains the top layer only; bprop all; local-loss gives each layer a classifier of its own; stale
    trains a layer on the gradients of earlier batches, once they have come down; feedback-alignment sends the
    output's error to each layer through fixed random weights. dni, cdni and critic put an interface between every
    two layers: blind, with the label, or with the gradient of a learned loss."""
    preset: Literal["fast", "paper"] = "fast"
    """fast: tuned for a budget of a few epochs. paper: the paper's rates, models and 500,000 iterations."""
    net: Literal["fcn", "cnn"] = "fcn"
    """Fully connected or convolutional layers."""
    data: Literal["mnist", "fashion-mnist", "cifar10"] = "mnist"
    """The images."""
    data_dir: str | None = None
    """A folder with the data's files; else the cache, else a download."""
    augment: bool = False
    """Random crops (4 pixels) and mirror images of the training images."""
    layers: int = 4
    """Layers, the output layer counted."""
    width: int = 256
    """Units of a hidden layer, or filters."""
    steps: int = 3000
    """Training steps (updates of each layer that learns)."""
    epochs: float | None = None
    """Instead of steps: passes over the training images."""
    batch: int = 256
    """Examples per step."""
    lr: float = 1e-3
    """Adam's learning rate for the layers."""
    decay: Literal["cosine", "steps"] = "cosine"
    """Learning rates fall to zero along a half cosine, or, as the paper's, to a tenth after 60 % and 80 %."""
    clip: float | None = None
    """The largest norm of a layer's gradient; longer ones are shortened."""
    model_lr: float = 1e-3
    """Adam's learning rate for the gradient models (and the heads of a local loss)."""
    model_hidden: int = 64
    """Units, or filters, of each hidden layer of a gradient model, or of a critic's or local loss' head."""
    model_depth: int = 1
    """Hidden layers of the same; 0 is linear. A head has no more than there are hidden layers above it."""
    model_kernel: int = 3
    """Side of a convolutional gradient model's filters, in pixels."""
    model_global: int = 0
    """Units of each hidden layer across the whole map, added to a convolutional gradient model; 0 is none."""
    model_norm: bool = False
    """Batch normalisation inside the gradient models."""
    model_beta1: float = 0.5
    """Adam's beta1 for the gradient models: with more momentum they lag behind the layers that they must follow."""
    model_beta2: float = 0.99
    """Adam's beta2 for the gradient models."""
    unit_factor: float = 32.0
    """A gradient model's unit in root mean squares of the gradient; larger learns faster, and less finely."""
    anchor: float = 1.0
    """Weight of the task's own loss in a critic's training beside the squared error of its gradients; 0 is the
    arriving gradients only."""
    target_every: int = 0
    """Layers learn from a copy of the gradient model, taken anew after so many gradients; 0 is no copy."""
    unlock: Literal["update", "fused", "complete"] = "update"
    """update: each layer is updated before the next one runs. fused: one graph, gradients decoupled only.
    complete: each layer runs on a synthetic input, so none waits for another in either direction."""
    input_hidden: int = 256
    """Units, or filters, of the hidden layer of an input model (unlock=complete)."""
    p_update: float = 1.0
    """Sparse updates: in each step every layer's backward pass and update happen, in random order, with this
    probability each."""
    lam: tuple[float, ...] = (0.0,)
    """BP(lambda): share of the true gradient that a fused interface passes on; one number, or one per interface
    with commas between."""
    lam_end: tuple[float, ...] | None = None
    """What lam has moved to, in a straight line, by the end; none: it stays."""
    warmup: int = 0
    """Steps at the start in which the layers learn from true gradients while the models learn to predict them."""
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """bf16: matrix products and convolutions in bfloat16 (autocast). auto: where the processor has it."""
    seed: int = 0
    """Seeds the weights and the order of the data."""
    eval_every: int = 250
    """Steps between points of the curve (validation error, quality of the synthetic gradients)."""
    checkpoint_every: int = 500
    """Steps between checkpoints."""
    threads: int = 1
    """Torch threads."""
    device: str = "cpu"
    """Where it runs: cpu, cuda, cuda:1, mps."""
    out: str | None = None
    """The run's folder; the default is a new one under runs/."""

    def __post_init__(self) -> None:
        """Refuse what cannot be run; count the steps of the epochs."""
        for name in ("lam", "lam_end"):
            value = getattr(self, name)
            if value is not None:  # one number, or a list from a record
                object.__setattr__(self, name, tuple(value) if isinstance(value, tuple | list) else (float(value),))
        if self.epochs is not None and 0 < self.epochs < math.inf:
            per_epoch = TRAINING[self.data] // max(self.batch, 1)
            object.__setattr__(self, "steps", max(1, round(self.epochs * per_epoch)))
        for name, shares in (("lam", self.lam), ("lam_end", self.lam_end)):
            if shares is None:
                continue
            if not all(0 <= share <= 1 for share in shares) or len(shares) not in (1, self.layers - 1):
                wanted = f"one number from 0 to 1, or {self.layers - 1} with commas between, one per interface"
                raise ValueError(f"{name}={','.join(map(str, shares))}: it must be {wanted}")
        refuse_outside(self, {"layers": (2, math.inf), "batch": (2, math.inf)})
        if any((*self.lam, *(self.lam_end or ()))) and self.unlock != "fused":
            raise ValueError(
                "lam mixes in the true gradient, which an unlocked layer does not wait for: unlock=fused"
            )
        if self.unlock != "update" and self.method not in INTERFACED:
            raise ValueError(f"unlock={self.unlock} wants interfaces: method={' or '.join(INTERFACED)}")
        if self.p_update < 1 and (self.unlock == "fused" or self.method not in (*INTERFACED, "local-loss")):
            raise ValueError(
                "p_update below 1 wants layers that can be updated one without the other: "
                f"method={' or '.join(INTERFACED)} or local-loss, unlock=update or complete"
            )
        if self.warmup and (self.unlock == "complete" or self.p_update < 1):
            raise ValueError("warmup waits for true gradients, which unlock=complete and p_update below 1 do not")

    told = "validation error {:.2f} %"
    """How a progress bar tells what the run has reached."""

    @property
    def label(self) -> str:
        """A run's name, without its seed."""
        return f"{self.recipe}-{self.method}-{self.layers}x{self.width}"
