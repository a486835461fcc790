"""The command ``synthgrad launch``."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthgrad_lab.commands.recipe import recipe_leaves
from synthgrad_lab.commands.words import Command, Group, Json, with_options
from synthgrad_lab.running.jsonl import to_json

if TYPE_CHECKING:
    from synthgrad_lab.stages import settings as stages
    from synthgrad_lab.stages.board import Board
    from synthgrad_lab.stages.settings import Settings

log = logging.getLogger(__name__)
COUNTS = ("steps", "missed", "dropped", "lost", "refused", "replayed", "nonfinite")


def launch(settings: Settings, how: stages.Launch, json: bool = False) -> None:
    """Train a recipe in stages and print its result.

    Args:
        settings: the recipe's.
        how: the stages.
        json: whether to print the result as JSON.
    """
    from synthgrad_lab.stages import training
    from synthgrad_lab.stages.split import cuts_for

    _train(settings, cuts_for(settings, how), partial(training.run, settings, how), json)


def resume(folder: Path, json: bool = False) -> None:
    """Resume the run in a folder and print its result."""
    from synthgrad_lab.stages import training

    settings, _, cuts = training.recorded(folder)
    _train(settings, cuts, partial(training.resume, folder), json)


def _train(settings: Settings, cuts: tuple[int, ...], train: Callable[[Board], dict[str, Any]], json: bool) -> None:
    from synthgrad.stages import StageFailed
    from synthgrad_lab.reporting.documents import markdown
    from synthgrad_lab.stages.board import Board
    from synthgrad_lab.stages.split import split_table

    if not json:
        log.info(markdown(split_table(settings, cuts)))
    try:
        # Ray reports a process that died on standard output, which is for the result.
        with Board(settings.steps) as board, redirect_stdout(sys.stderr):
            result = train(board)
    except StageFailed as error:
        raise ValueError(str(error)) from None
    if json:
        print(to_json(result))
        return
    for name, text in _described(result, settings.steps).items():
        print(f"{name:17} {text}")


def _described(result: dict[str, Any], steps: int) -> dict[str, str]:
    """The result's lines of text, by name."""
    seconds = result["seconds"]
    lines = {name.replace("_", " "): f"{result[name]:.2f} %" for name in ("test_error", "validation_error")}
    lines["seconds"] = f"{seconds:.1f}" + (f", {steps / seconds:.0f} steps/s" if seconds else "")
    lines["restarts"] = f"{result['restarts']}, {result['steps_lost']} steps made again"
    for k, stage in enumerate(result["per_stage"]):
        counts = ", ".join(f"{name} {stage[name]}" for name in COUNTS)
        late, loss = _number(stage["staleness"]), _number(stage["regression_loss"])
        lines[f"stage {k}"] = f"{counts}, staleness {late}, M's loss {loss}"
    return lines | {"record": result["record"]}


def _number(value: float | None) -> str:
    """A measure of a stage; the top stage has no M above it, hence NaN, or null in a record."""
    return "none" if value is None or math.isnan(value) else f"{value:.2f}"


@dataclass(frozen=True)
class Launch(Command):
    """Run a recipe in stages, one process each: live table, record, checkpoints and trace in its folder."""

    json: Json = False

    def __call__(self) -> None:
        """Run it."""
        launch(getattr(self, "settings"), getattr(self, "how"), self.json)  # noqa: B009, fields of `with_options`


@dataclass(frozen=True)
class Resume(Command):
    """Resume an interrupted launch from its stages' checkpoints."""

    resume: str
    """The run's folder."""
    json: Json = False

    def __call__(self) -> None:
        """Resume it."""
        resume(Path(self.resume), self.json)


def group() -> Group:
    """The recipes that can be run in stages."""
    text = "Run an image recipe in stages, or resume such a run.\n\nExample: synthgrad launch mnist-fcn --stages 4"
    return Group(text, "recipe", recipe_leaves(_command, lambda family: family.name == "feedforward"), Resume)


def _command() -> type[Command]:
    """The command with the options of a launch; their library needs torch, which the list of recipes does without."""
    from synthgrad_lab.stages import settings

    return with_options(Launch, "how", settings.Launch())
