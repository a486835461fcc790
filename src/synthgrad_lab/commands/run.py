"""The command ``run``: run a recipe, or resume a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthgrad_lab.commands.recipe import recipe_leaves
from synthgrad_lab.commands.words import Command, Group, Json
from synthgrad_lab.families import settings_from
from synthgrad_lab.running.settings import Settings


@dataclass(frozen=True)
class Run(Command):
    """Run a recipe: progress bar, record, checkpoints and TensorBoard curves in its folder under runs/."""

    json: Json = False

    def __call__(self) -> None:
        """Run it."""
        settings: Settings = getattr(self, "settings")  # noqa: B009, the field of `with_options`
        _shown(settings, self.json, None)


@dataclass(frozen=True)
class Resume(Command):
    """Resume an interrupted run from its checkpoint; it ends as if it had not been interrupted."""

    resume: str
    """The run's folder."""
    json: Json = False

    def __call__(self) -> None:
        """Resume it."""
        from synthgrad_lab.running.run_folder import first_line

        folder = Path(self.resume)
        _shown(settings_from(first_line(folder)["settings"]), self.json, folder)


def _shown(settings: Settings, json: bool, folder: Path | None) -> None:
    from synthgrad_lab.running import loop
    from synthgrad_lab.running.console import Bars
    from synthgrad_lab.running.jsonl import to_json

    with Bars() as bars:
        bar = bars.bar(settings.label, settings.steps, settings.progress_format)
        result = loop.resume(folder, settings, bar) if folder else loop.run(settings, bar)
    print(to_json(result) if json else "\n".join(lines(result)))


def lines(result: dict[str, Any]) -> list[str]:
    """A result, one measure a line."""
    plain = {key: value for key, value in result.items() if not isinstance(value, dict)}
    found = [f"{key.replace('_', ' '):32} {_text(value)}" for key, value in plain.items() if key != "curve"]
    for name, quality in result.get("quality", {}).items():
        measures = ", ".join(f"{k.replace('_', ' ')} {v:.2f}" for k, v in quality.items())
        found.append(f"{f'quality at {name}':32} {measures}")
    return found


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(_text, value))
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def group() -> Group:
    """All recipes."""
    text = "Run a recipe, or resume a run.\n\nExample: synthgrad run mnist-fcn --method dni --layers 6 --seed 1"
    return Group(text, "recipe", recipe_leaves(lambda: Run), Resume)
