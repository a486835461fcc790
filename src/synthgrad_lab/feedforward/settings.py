"""Settings of a feed-forward run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, get_args

import tyro

from synthgrad_lab.running import settings as common
from synthgrad_lab.running.ranges import Count, FromTwo, FromZero, Positive, Range, Share, Weight

Method = Literal["no-bprop", "bprop", "local-loss", "stale", "feedback-alignment", "dni", "cdni", "critic"]
METHODS: tuple[Method, ...] = get_args(Method)
PAPER: tuple[Method, ...] = ("no-bprop", "bprop", "dni", "cdni")
"""The methods of the paper's table."""
MAIN: tuple[Method, ...] = ("no-bprop", "bprop", "local-loss", "dni", "cdni", "critic")
"""The methods that are run at every size of each network; the others are run at 4 layers."""
INTERFACED = ("dni", "cdni", "critic")
"""The methods with an interface between every two layers."""
LABELS = {
    "no-bprop": "No Bprop",
    "bprop": "Bprop",
    "local-loss": "Local loss",
    "stale": "Stale gradients",
    "feedback-alignment": "Feedback alignment",
    "dni": "DNI",
    "cdni": "cDNI",
    "critic": "Critic",
}
Chance = Annotated[float, Range(0.001, 1)]
"""A probability that is not zero."""
TRAINING = {"mnist": 55_000, "fashion-mnist": 55_000, "cifar10": 45_000}
"""Training images of each data set; the rest of its published training set is for validation."""


@dataclass(frozen=True)
class Optimizer(common.Optimizer):
    """Adam for the layers."""

    decay: Literal["cosine", "steps"] = "cosine"
    """How learning rates fall: along a half cosine to zero, or, as in the paper, to a tenth after 60 % and 80 %."""
    clip: Positive | None = None
    """Largest norm of a layer's gradient; longer ones are shortened."""


@dataclass(frozen=True)
class Model(common.Model):
    """Gradient models, heads of critics and local losses, input models; and the Adam that trains them."""

    depth: FromZero = 1
    """Hidden layers; 0 is linear. A head has at most as many as there are hidden layers above it."""
    kernel: Count = 3
    """Side of a convolutional gradient model's filters, in pixels."""
    across: FromZero = 0
    """Units of each hidden layer across the whole map, added to a convolutional gradient model; 0 is none."""
    norm: bool = False
    """Batch normalisation inside gradient models."""
    anchor: Weight = 1.0
    """Weight of the task's own loss in a critic's training, beside the squared error of its gradients; 0 leaves the
    arriving gradients only."""
    target_every: FromZero = 0
    """If above 0, layers learn from a frozen copy of the gradient model, refreshed after every
    `target_every` gradients."""
    input_hidden: Count = 256
    """Units, or filters, of an input model's hidden layer (unlock complete)."""


@dataclass(frozen=True)
class Mixing(common.Checked):
    """True gradients mixed into synthetic ones: BP(lambda), and the warm-up at the start."""

    lam: tuple[Share, ...] = (0.0,)
    """BP(lambda): share of the true gradient that a fused interface passes on; one number, or one per interface."""
    lam_end: tuple[Share, ...] | None = None
    """Value that lam reaches, in a straight line, at the end; without it lam stays."""
    warm_up: FromZero = 0
    """Steps at the start in which layers learn from true gradients while the models learn to predict them."""


@dataclass(frozen=True)
class Run(common.Run):
    """How often a run is measured and saved, and how it computes."""

    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """bf16: matrix products and convolutions in bfloat16 (autocast). auto: where the processor has it."""


@dataclass(frozen=True)
class Settings(common.Settings):
    """Settings of a feed-forward run."""

    recipe: tyro.conf.Fixed[tyro.conf.Suppress[str]] = "mnist-fcn"
    """The recipe that these settings come from."""
    method: Method = "cdni"
    """no-bprop trains the top layer only; bprop all layers; local-loss gives each layer its own classifier; stale
    trains a layer on the gradients of earlier batches, once they have come down; feedback-alignment sends the output's
    error to each layer through fixed random weights. dni, cdni and critic put an interface between every two layers:
    without the label, with it, or with the gradient of a learned loss."""
    preset: Literal["fast", "paper"] = "fast"
    """fast: tuned for a few epochs. paper: the paper's rates, models and 500,000 iterations."""
    net: tyro.conf.Fixed[tyro.conf.Suppress[Literal["fcn", "cnn"]]] = "fcn"
    """Fully connected or convolutional layers."""
    data: Literal["mnist", "fashion-mnist", "cifar10"] = "mnist"
    """The images."""
    augment: bool = False
    """Random crops (4 pixels) and mirror images of the training images."""
    layers: FromTwo = 4
    """Layers, counting the output layer."""
    width: Count = 256
    """Units of a hidden layer, or filters."""
    batch: FromTwo = 256
    """Examples per step."""
    epochs: Positive | None = None
    """Passes over the training images, instead of steps."""
    unlock: Literal["update", "fused", "complete"] = "update"
    """update: each layer is updated before the next one runs. fused: one graph, gradients decoupled only.
    complete: each layer runs on a synthetic input, so none waits for another in either direction."""
    p_update: Chance = 1.0
    """Sparse updates: probability with which each layer runs backwards and is updated in a step, in random order."""
    optimizer: Optimizer = field(default_factory=Optimizer)
    model: Model = field(default_factory=Model)
    mixing: Mixing = field(default_factory=Mixing)
    run: Run = field(default_factory=Run)

    versions: ClassVar[Mapping[str, int]] = {"local-loss": 2}
    """Local loss 2: the critic's heads, where there was a linear read-out."""

    def __post_init__(self) -> None:
        """Check the settings; count the steps of the epochs.

        Raises:
            ValueError: for settings that cannot be run together.
        """
        steps = common.epochs_to_steps(self.epochs, TRAINING[self.data], self.batch, self.steps)
        object.__setattr__(self, "steps", steps)
        super().__post_init__()
        m = self.mixing
        for name, shares in (("lam", m.lam), ("lam_end", m.lam_end)):
            if shares is not None and len(shares) not in (1, self.layers - 1):
                wanted = f"one number, or {self.layers - 1}, one per interface"
                raise ValueError(f"{name}={' '.join(map(str, shares))}: it must be {wanted}")
        if any((*m.lam, *(m.lam_end or ()))) and self.unlock != "fused":
            raise ValueError(
                "lam mixes in the true gradient, and an unlocked layer does not wait for it: unlock=fused"
            )
        if self.unlock != "update" and self.method not in INTERFACED:
            raise ValueError(f"unlock={self.unlock} needs interfaces: method={' or '.join(INTERFACED)}")
        if self.p_update < 1 and (self.unlock == "fused" or self.method not in (*INTERFACED, "local-loss")):
            raise ValueError(
                "p_update below 1 needs layers that can be updated separately: "
                f"method={' or '.join(INTERFACED)} or local-loss, unlock=update or complete"
            )
        if m.warm_up and (self.unlock == "complete" or self.p_update < 1):
            raise ValueError("warm_up waits for true gradients, but unlock=complete and p_update below 1 do not")

    @property
    def label(self) -> str:
        """A run's name, without its seed."""
        return f"{self.recipe}-{self.method}-{self.layers}x{self.width}"

    @property
    def progress_format(self) -> str:
        """How a progress bar shows the validation error."""
        return "validation error {:.2f} %"

    @property
    def data_key(self) -> tuple[str | None, ...]:
        """The images."""
        return self.data, self.data_dir


def version_today(row: Mapping[str, Any]) -> int:
    """The version that a record's run would have today."""
    return Settings.version_for(row["settings"])
