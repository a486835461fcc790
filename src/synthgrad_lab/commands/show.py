"""The command ``show``: an example of a recurrent task, or the schedule of clocks."""

from __future__ import annotations

from dataclasses import dataclass

from synthgrad_lab.commands.recipe import recipe_leaves
from synthgrad_lab.commands.words import Command, Group, Json
from synthgrad_lab.families import family_of
from synthgrad_lab.running.settings import Settings

SHOWN = ("recurrent", "clocks")
"""Families with something to show."""


@dataclass(frozen=True)
class Show(Command):
    """Print an example of a recurrent task, or who ticks, sends and is updated when on two clocks."""

    json: Json = False

    def __call__(self) -> None:
        """Print it."""
        from synthgrad_lab.running.jsonl import to_json

        settings: Settings = getattr(self, "settings")  # noqa: B009, the field of `with_options`
        example = family_of(settings.recipe).part("training", "show")(settings)
        print(to_json({"recipe": settings.recipe, "example": example}) if self.json else example)


def group() -> Group:
    """The recipes that can be shown."""
    text = "Print an example of a recurrent task, or the schedule of clocks.\n\nExample: synthgrad show repeat-copy"
    return Group(text, "recipe", recipe_leaves(lambda: Show, lambda family: family.name in SHOWN))
