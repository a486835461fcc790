"""The command ``env``: what a number here depends on."""

from __future__ import annotations

from dataclasses import dataclass

from synthgrad_lab.commands.words import Command, Json


@dataclass(frozen=True)
class Env(Command):
    """Show what a number here depends on: versions, commit, processor, cache.

    Example: synthgrad env --json
    """

    json: Json = False

    def __call__(self) -> None:
        """Print it."""
        from synthgrad_lab.data.sources import cache_folder
        from synthgrad_lab.running.jsonl import to_json
        from synthgrad_lab.running.record import environment

        values = {**environment(), "cache": str(cache_folder())}
        print(to_json(values) if self.json else "\n".join(f"{key:15} {value}" for key, value in values.items()))
