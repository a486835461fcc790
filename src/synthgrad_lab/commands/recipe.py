"""Recipes as words: ``RECIPE --method dni --layers 6``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from synthgrad_lab.commands.words import BadUsage, Command, Leaf, chosen, with_options
from synthgrad_lab.families import recipes
from synthgrad_lab.running.family import Family
from synthgrad_lab.running.settings import Settings


def recipe_leaves(
    command: Callable[[], type[Command]], known: Callable[[Family], bool] = lambda family: True
) -> dict[str, tuple[str, Leaf]]:
    """A command for each recipe: its options are the recipe's settings.

    Args:
        command: returns the command that gets a field ``settings``.
        known: which families' recipes.
    """
    found = {name: family for name, family in recipes().items() if known(family)}
    return {name: (described(family, name), _leaf(command, family, name)) for name, family in found.items()}


def described(family: Family, recipe: str) -> str:
    """A recipe's docstring."""
    return " ".join((family.recipes[recipe].__doc__ or "").split())


def _leaf(command: Callable[[], type[Command]], family: Family, recipe: str) -> Leaf:
    def kind(words: Sequence[str]) -> Any:
        hint = "The method decides the defaults of other settings: give --method with --help."
        text = f"{described(family, recipe)}\n\n{hint}"
        return with_options(command(), "settings", defaults(family, recipe, words), text)

    return kind


def defaults(family: Family, recipe: str, words: Sequence[str] = ()) -> Settings:
    """A recipe's settings, given what the words choose: the method decides the defaults of other settings.

    Raises:
        BadUsage: if the words name the same thing twice.
    """
    found = chosen(words)
    if {"steps", "epochs"} <= found.keys():
        raise BadUsage("--steps and --epochs set the same thing; give one of them")
    return family.defaults(recipe, found)
