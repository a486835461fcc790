"""The recurrent tasks, by recipe."""

from __future__ import annotations

from synthgrad_lab.recurrent.settings import Settings
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
        ValueError: if the method wants what the task cannot tell.
    """
    task = _task_of(s)
    if s.method in ("local", "cdni"):
        if not isinstance(task, Episodes):
            raise ValueError(
                f"method={s.method} sees the targets to come: {s.recipe} has no episodes to know them from"
            )
        task.ahead = s.model.ahead
    return task


def _task_of(s: Settings) -> Task:
    usual = s.T, s.batch, s.seed
    match s.recipe:
        case "add":
            return Add(*usual)
        case "delay":
            return Delay(*usual, s.task.first, s.task.grow)
        case "copy" | "repeat-copy":
            return Copy(*usual, s.task.first, s.task.bits, s.recipe == "repeat-copy", s.task.grow)
        case "char-lm":
            return Chars(*usual, s.task.text)
        case "seq-mnist":
            return Rows(*usual, s.data_dir)
        case "line-drawing":
            return Lines(*usual)
        case _:
            raise ValueError(f"unknown recipe {s.recipe!r}")
