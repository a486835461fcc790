"""A family of experiments: a package whose files have the same names in every family."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from synthgrad_lab.running.jsonl import Row
from synthgrad_lab.running.settings import Settings


@dataclass(frozen=True)
class Family:
    """One family, by its package: its files are imported when they are first needed, so that ``--help`` is quick.

    ==============  =====================================================================================
    file            must hold
    ==============  =====================================================================================
    settings        ``Settings``, ``METHODS``, ``LABELS`` (methods' names in tables)
    recipes         ``RECIPES`` (a function of the method, by name), ``USUAL`` (a recipe's method without a choice)
    networks        the networks and gradient models
    training        ``start(settings)``, a ``Training``; ``download`` and ``cost`` where they are needed
    experiments     ``EXPERIMENTS`` by name: what ``synthgrad reproduce`` runs
    bench           ``BENCHES`` by name: what ``synthgrad bench`` measures
    tables          ``TABLES`` by name: tables of documents
    report          ``section(runs)``: the family's part of a report
    ==============  =====================================================================================

    Args:
        package: the package's name, for instance ``synthgrad_lab.recurrent``. Its docstring is the family's title.
    """

    package: str

    def part(self, name: str, value: str, default: Any = None) -> Any:
        """A value of one of the family's files; the default if there is no such file, or no such value in it."""
        if importlib.util.find_spec(f"{self.package}.{name}") is None:
            return default
        return getattr(importlib.import_module(f"{self.package}.{name}"), value, default)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.package.rpartition(".")[2]

    @property
    def title(self) -> str:
        """The first sentence of the package's docstring."""
        return str(importlib.import_module(self.package).__doc__).split(":")[0].split("\n")[0].rstrip(".")

    @property
    def settings(self) -> type[Settings]:
        """The family's class of settings."""
        return self.part("settings", "Settings")

    @property
    def methods(self) -> Sequence[str]:
        """Its methods."""
        return self.part("settings", "METHODS", ())

    @property
    def recipes(self) -> Mapping[str, Any]:
        """Its recipes: functions of the method that return settings."""
        return self.part("recipes", "RECIPES", {})

    def defaults(self, recipe: str, chosen: Mapping[str, str]) -> Settings:
        """A recipe's settings where only what ``chosen`` names is decided; the method decides the others' defaults.

        Args:
            recipe: one of the family's.
            chosen: settings by name, as texts; ``method``, and what the family's ``recipes.defaults`` looks at.
        """
        if own := self.part("recipes", "defaults"):
            return own(recipe, chosen)
        method = chosen.get("method")
        return self.recipes[recipe](method if method in self.methods else self.part("recipes", "USUAL"))

    @property
    def experiments(self) -> Mapping[str, Any]:
        """What ``synthgrad reproduce`` runs."""
        return self.part("experiments", "EXPERIMENTS", {})

    @property
    def benches(self) -> Mapping[str, Any]:
        """What ``synthgrad bench`` measures."""
        return self.part("bench", "BENCHES", {})

    @property
    def tables(self) -> Mapping[str, Any]:
        """Tables of documents."""
        return self.part("tables", "TABLES", {})

    def settings_of(self, row: Row) -> Settings:
        """The settings of a record.

        Raises:
            ValueError: if the record holds a setting that no longer exists, or a value that is refused today.
        """
        return self.settings.from_record(row["settings"])

    def version_of(self, row: Row) -> int:
        """The version that the run of a record would have today."""
        return self.settings.version_for(row["settings"])
