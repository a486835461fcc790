"""The command ``list``: the recipes, or one recipe's settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from synthgrad_lab.commands.recipe import defaults, described
from synthgrad_lab.commands.words import BadUsage, Command, Json, nearest
from synthgrad_lab.families import FAMILIES, recipes
from synthgrad_lab.running.family import Family
from synthgrad_lab.running.settings import flat

FIXED = ("recipe", "net")
"""Settings that the recipe's name decides."""


@dataclass(frozen=True)
class List(Command):
    """List the recipes; with a recipe's name, its settings and how each method changes their defaults.

    Example: synthgrad list mnist-fcn
    """

    recipe: Annotated[str | None, tyro.conf.Positional] = None
    """Name of a recipe."""
    json: Json = False

    heavy = False

    def __call__(self) -> None:
        """Print the list."""
        from synthgrad_lab.running.jsonl import to_json

        known = recipes()
        if self.recipe is not None and self.recipe not in known:
            raise BadUsage(f"unknown recipe {self.recipe!r}; {nearest(self.recipe, known)}")
        if self.json:
            names = known if self.recipe is None else [self.recipe]
            print(to_json({name: texts(known[name], name) for name in names}))
        elif self.recipe is None:
            for family in FAMILIES:
                if family.recipes:
                    print(f"{family.title}\n")
                    print(
                        "\n".join(f"  {name:14} {described(family, name)}" for name in family.recipes), end="\n\n"
                    )
            print("synthgrad list RECIPE shows its settings; synthgrad run RECIPE --help explains them.")
        else:
            print("\n".join(long(known[self.recipe], self.recipe)))


def long(family: Family, recipe: str) -> list[str]:
    """A recipe's settings with their defaults, and what each method changes in them."""
    usual = texts(family, recipe)
    found = [
        f"{recipe}: {described(family, recipe)}",
        "",
        f"Settings, with the defaults of --method {usual['method']}:",
    ]
    found += [f"  --{name.replace('_', '-'):28} {value}" for name, value in usual.items()]
    for method in family.methods:
        of_method = texts(family, recipe, method)
        changed = [f"--{name.replace('_', '-')} {v}" for name, v in of_method.items() if v != usual[name]]
        if changed[1:]:
            found += ["", f"With {' '.join(changed)}"]
    return found


def texts(family: Family, recipe: str, method: str = "") -> dict[str, str]:
    """A recipe's settings as texts, by dotted name."""
    settings = defaults(family, recipe, [f"--method={method}"] if method else [])
    return {name: _text(value) for name, value in flat(settings).items() if name not in FIXED}


def _text(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
