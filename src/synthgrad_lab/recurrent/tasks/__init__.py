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
    task = _task_of(s)
    if s.method in ("local-loss", "cdni"):
        if not isinstance(task, Episodes):
            raise ValueError(
                f"method={s.method} sees an episode's targets to come: {s.recipe} has no episodes; "
                "choose another method, or a recipe with episodes"
            )
        task.ahead = s.model.ahead
    return task


def _task_of(s: Settings) -> Task:
    usual = s.T, s.batch, s.seed
    match s.recipe, s.task:
        case "add", _:
            return Add(*usual)
        case "delay", Growing(first, grow):
            return Delay(*usual, first, grow)
        case "copy" | "repeat-copy", Copying(first, grow, bits):
            return Copy(*usual, first, bits, s.recipe == "repeat-copy", grow)
        case "char-lm", Text(text):
            return Chars(*usual, text)
        case "seq-mnist", _:
            return Rows(*usual, s.data_dir)
        case "line-drawing", _:
            return Lines(*usual)
        case recipe, task:
            raise ValueError(f"recipe {recipe!r} with {task} is none of the recurrent recipes; see recipes.py")
