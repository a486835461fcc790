"""How the layers of a chain learn: one file per way; each yields the losses of a step."""

from __future__ import annotations

from synthgrad_lab.feedforward.methods.base import Method
from synthgrad_lab.feedforward.methods.decoupled import Decoupled
from synthgrad_lab.feedforward.methods.feedback import FeedbackAlignment
from synthgrad_lab.feedforward.methods.local import LocalLoss
from synthgrad_lab.feedforward.methods.plain import Bprop, NoBprop
from synthgrad_lab.feedforward.methods.stale import Stale

METHOD_CLASSES: dict[str, type[Method]] = {
    "no-bprop": NoBprop,
    "bprop": Bprop,
    "local-loss": LocalLoss,
    "stale": Stale,
    "feedback-alignment": FeedbackAlignment,
    "dni": Decoupled,
    "cdni": Decoupled,
    "critic": Decoupled,
}
