"""Three sizes of the feed-forward experiment: quick, standard and the paper's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from synthgrad_lab.feedforward.recipes import RECIPES, paper_preset
from synthgrad_lab.feedforward.settings import Method, Settings
from synthgrad_lab.running.settings import vary

Name = Literal["quick", "standard", "paper"]


@dataclass(frozen=True)
class Budget:
    """The size of the experiment: seeds, steps and widths."""

    seeds: int
    """Runs of each method on each network."""
    changes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Changed settings of each recipe."""
    share: float = 1.0
    """Share of the steps of variants that have a length of their own."""
    paper: bool = False
    """Use the paper's preset."""

    def settings(self, recipe: str, method: Method) -> Settings:
        """A recipe's settings within the budget."""
        settings = RECIPES[recipe](method)
        return vary(paper_preset(settings) if self.paper else settings, self.changes.get(recipe, {}))

    def lengthened(self, settings: Settings, steps: int, points: int | None = None) -> Settings:
        """The settings with the budget's share of these steps, and as many points of the curve, if they are given.

        The paper's preset keeps its steps.
        """
        if self.paper:
            return settings
        steps = round(steps * self.share)
        curve = {"run.eval_every": steps // points} if points else {}
        return vary(settings, {"steps": steps, "epochs": None, **curve})


BUDGETS: dict[Name, Budget] = {
    "quick": Budget(
        seeds=1,
        share=0.1,
        changes={
            "mnist-fcn": {"steps": 500},
            "mnist-cnn": {"width": 16, "model.hidden": 16, "epochs": 1},
            "cifar-fcn": {"width": 256, "epochs": 2},
            "cifar-cnn": {"width": 16, "model.hidden": 16, "epochs": 2},
        },
    ),
    "standard": Budget(
        seeds=3,
        changes={
            "mnist-cnn": {"width": 32, "model.hidden": 32, "epochs": 2},
            "cifar-fcn": {"width": 256, "epochs": 5},
            "cifar-cnn": {"width": 32, "model.hidden": 32, "epochs": 10},
        },
    ),
    "paper": Budget(seeds=3, paper=True),
}
