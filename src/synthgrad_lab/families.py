"""The kinds of runs: which settings belong to which training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from synthgrad_lab.clocks import settings as clocks
from synthgrad_lab.feedforward import recipes
from synthgrad_lab.feedforward import settings as config
from synthgrad_lab.recurrent import recipes as sequences
from synthgrad_lab.recurrent import settings as recurrent

AnySettings: TypeAlias = config.Settings | recurrent.Settings | clocks.Settings


class Training(Protocol):
    """What the run's loop drives: one step after another, a point of the curve now and then, a result."""

    measure: str
    """The key of a point that tells how well it goes."""

    def step(self, done: int) -> float | None:
        """One step, after so many; its loss, if there was one."""
        ...

    def point(self) -> dict[str, Any]:
        """Measures for the curve, from validation data; ``quality`` holds those of each gradient model."""
        ...

    def result(self, seconds: float, measure: float) -> dict[str, Any]:
        """What the record's last line says."""
        ...

    def events(self) -> list[dict[str, Any]]:
        """The timeline of a step, where there is one to show."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All that a later step depends on, but for torch's own random state."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a ``state_dict``."""
        ...


@dataclass(frozen=True)
class Kind:
    """Recipes that share their settings and their training."""

    title: str
    settings: type
    recipes: Mapping[str, Callable[[Any], AnySettings]]
    methods: tuple[str, ...]
    usual: str
    """The method that a recipe has if nothing is said."""
    versions: Mapping[str, int]
    """Of its methods' recipes, where they are not 1."""


IMAGES = Kind("Images", config.Settings, recipes.RECIPES, config.METHODS, "cdni", config.VERSIONS)
SEQUENCES = Kind("Sequences", recurrent.Settings, sequences.RECIPES, recurrent.METHODS, "dni", recurrent.VERSIONS)
CLOCKS = Kind("Two networks, two clocks", clocks.Settings, clocks.RECIPES, clocks.METHODS, "dni", clocks.VERSIONS)
KINDS = (IMAGES, SEQUENCES, CLOCKS)


def kind_of(recipe: str | None) -> Kind:
    """The kind of a recipe; of image classification for a record that names none."""
    return next((kind for kind in KINDS if recipe in kind.recipes), IMAGES)


def settings_from(values: dict[str, Any]) -> AnySettings:
    """Settings as a record has them."""
    return kind_of(values.get("recipe")).settings(**values)


def fetched(settings: AnySettings) -> tuple[str | None, ...]:
    """Which data a run needs; runs that need the same need it fetched once."""
    match settings:
        case recurrent.Settings():
            return settings.recipe, settings.text, settings.data_dir
        case clocks.Settings():
            return "mnist", settings.data_dir
        case _:
            return settings.data, settings.data_dir


def fetch(settings: AnySettings) -> None:
    """See to it that a run's data is in the cache."""
    from synthgrad_lab.data import load

    match settings:
        case recurrent.Settings():
            from synthgrad_lab.recurrent.tasks import task_of

            task_of(settings)
        case clocks.Settings():
            load("mnist", settings.data_dir)
        case _:
            load(settings.data, settings.data_dir)


def training_of(settings: AnySettings) -> Training:
    """A new training with these settings."""
    match settings:
        case recurrent.Settings():
            from synthgrad_lab.recurrent.training import Sequences

            return Sequences(settings)
        case clocks.Settings():
            from synthgrad_lab.clocks.training import TwoClocks

            return TwoClocks(settings)
        case _:
            from synthgrad_lab.feedforward.training import Classification

            return Classification(settings)
