"""The families of experiments. To add one, add its folder and a line here."""

from __future__ import annotations

from synthgrad_lab.running.family import Family
from synthgrad_lab.running.settings import Settings

FAMILIES = (
    Family("synthgrad_lab.feedforward"),
    Family("synthgrad_lab.recurrent"),
    Family("synthgrad_lab.clocks"),
    Family("synthgrad_lab.stages"),
)


def recipes() -> dict[str, Family]:
    """The family of every recipe."""
    return {recipe: family for family in FAMILIES for recipe in family.recipes}


def family_of(recipe: str) -> Family:
    """The family of a recipe.

    Raises:
        ValueError: if there is no recipe of that name.
    """
    known = recipes()
    if recipe not in known:
        raise ValueError(f"unknown recipe {recipe!r}; there are: {', '.join(known)}")
    return known[recipe]


def settings_from(values: dict) -> Settings:
    """The settings that a run's record holds.

    Raises:
        ValueError: if it holds settings that no longer exist.
    """
    return family_of(values.get("recipe", "")).settings.from_record(values)
