"""The recurrent tasks, by recipe."""

from __future__ import annotations

from synthgrad_lab.recurrent.settings import Copying, Growing, Settings, Text
from synthgrad_lab.recurrent.tasks.add import Add
from synthgrad_lab.recurrent.tasks.base import Episodes, Task
from synthgrad_lab.recurrent.tasks.chars import Chars
from synthgrad_lab.recurrent.tasks.copying import Copy
from synthgrad_lab.recurrent.tasks.delay import Delay
from synthgrad_lab.recurrent.tasks.lines import Lines
from synthgrad_lab.recurrent.tasks.rows import Rows


def task_of(s: Settings) -> Task:
    """The recipe's task at these settings.

    Raises:
        ValueError: if the method needs targets to come and the task has no episodes.
    """
    usual = s.T, s.batch, s.seed
    match s.recipe, s.task:
        case "add", _:
            task = Add(*usual)
        case "delay", Growing(first, grow):
            task = Delay(*usual, first, grow)
        case "copy" | "repeat-copy", Copying(first, grow, bits):
            task = Copy(*usual, first, bits, s.recipe == "repeat-copy", grow)
        case "char-lm", Text(text):
            task = Chars(*usual, text)
        case "seq-mnist", _:
            task = Rows(*usual, s.data_dir)
        case "line-drawing", _:
            task = Lines(*usual)
        case recipe, own:
            raise ValueError(f"recipe {recipe!r} with {own} is none of the recurrent recipes; see recipes.py")
    if s.method in ("local-loss", "cdni"):
        if not isinstance(task, Episodes):
            raise ValueError(
                f"method={s.method} sees an episode's targets to come: {s.recipe} has no episodes; "
                "choose another method, or a recipe with episodes"
            )
        task.ahead = s.model.ahead
    return task
