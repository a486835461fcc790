"""The command ``synthgrad launch``."""

from __future__ import annotations

import math
import sys
from argparse import Namespace
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from synthgrad_lab.commands.run import recipe_of, settings_of
from synthgrad_lab.families import IMAGES
from synthgrad_lab.feedforward.settings import Settings
from synthgrad_lab.running.jsonl import to_json
from synthgrad_lab.running.record import note
from synthgrad_lab.running.settings import BadSetting


def do_launch(options: Namespace) -> None:
    """Run a recipe in stages, or go on with such a run."""
    from synthgrad.stages import StageFailed
    from synthgrad_lab.reporting import documents as page
    from synthgrad_lab.stages import training as launched
    from synthgrad_lab.stages.board import Board
    from synthgrad_lab.stages.settings import described, divided

    if options.list:
        print("\n".join(f"  {key + '=' + default:24} {text}" for key, default, text in described()))
        return
    recipe, pairs = recipe_of(options.words)
    folder = pairs.pop("resume", None)
    if folder:
        if pairs or recipe:
            raise BadSetting("resume= goes on with a run's own settings; leave out everything else")
        settings, how, cuts = launched.recorded(Path(folder))
    else:
        how, words = divided(pairs)
        settings: Any = settings_of(recipe, words)
        if not isinstance(settings, Settings):
            raise BadSetting(f"{recipe} is no chain of layers; there are: {', '.join(IMAGES.recipes)}")
        cuts = launched.cuts_for(settings, how)
    if not options.json:
        note(page.markdown(launched.split_shown(settings, cuts)))
    try:
        # Ray tells of a process that died on standard output, which is for the result.
        with Board(settings.steps) as board, redirect_stdout(sys.stderr):
            result = launched.resume(Path(folder), board) if folder else launched.run(settings, how, board)
    except StageFailed as error:
        raise ValueError(str(error)) from None
    if options.json:
        print(to_json(result))
        return
    for name in ("test_error", "validation_error"):
        print(f"{name.replace('_', ' '):17} {result[name]:.2f} %")
    rate = f", {settings.steps / result['seconds']:.0f} steps/s" if result["seconds"] else ""
    print(f"{'seconds':17} {result['seconds']:.1f}{rate}")
    print(f"{'restarts':17} {result['restarts']}, {result['steps_lost']} steps made again")
    for k, told in enumerate(result["per_stage"]):
        counts = ", ".join(f"{name} {told[name]}" for name in ("steps", "dropped", "lost", "refused", "replayed"))
        late, loss = _number(told["staleness"]), _number(told["regression_loss"])
        print(f"{f'stage {k}':17} {counts}, staleness {late}, M's loss {loss}")
    print(f"{'record':17} {result['record']}")


def _number(value: float | None) -> str:
    """What a stage has counted; a record has null for what is no number: the top stage has no M above it."""
    return "none" if value is None or math.isnan(value) else f"{value:.2f}"
