"""Many runs at once, one process each: finished ones are kept, interrupted ones go on."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from synthgrad_lab.config import Settings
from synthgrad_lab.methods.base import run as run_parts
from synthgrad_lab.networks import IMAGES, network
from synthgrad_lab.progress import Bars
from synthgrad_lab.record import Record, lines_to, note, read_lines, to_json
from synthgrad_lab.run import Interrupted, recorded, resume, run
from synthgrad_lab.tasks import load

_LISTED = 16  # runs whose bars stay on the screen when they have ended
_shared: Any = None  # in a worker: (steps done, error) of every cell, read by the parent for its bars


def run_cells(cells: Mapping[str, Settings], folder: Path, workers: int = 2) -> dict[str, dict[str, Any]]:
    """Run every cell to its end, each in ``folder/name``.

    Args:
        cells: settings by name.
        folder: where the cells' folders are; what is there already with the same settings is not run again.
        workers: processes at a time; each run takes its own ``threads``.

    Returns:
        Each cell's result, by name.

    Raises:
        KeyboardInterrupt: after Ctrl-C; every run under way has been stopped with its checkpoint.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tasks = {name: replace(settings, out=str(folder / name)) for name, settings in cells.items()}
    results = {name: result for name, settings in tasks.items() if (result := _ended(settings))}
    tasks = {name: settings for name, settings in tasks.items() if name not in results}
    if not tasks:
        return results
    if results:
        note(f"{len(results)} of {len(cells)} runs have ended already and are kept")
    for data, data_dir in {(settings.data, settings.data_dir) for settings in tasks.values()}:
        load(data, data_dir)  # fetched once, not by every worker
    context = multiprocessing.get_context("spawn")
    shared = context.Array("d", 2 * len(tasks))
    brief = len(tasks) > _LISTED
    with Bars(brief) as bars, ProcessPoolExecutor(workers, context, _start, (shared,)) as pool:
        work = [work_of(settings) for settings in tasks.values()]
        whole = bars.whole(len(tasks), sum(work))
        advance = [bars.bar(name, settings.steps) for name, settings in tasks.items()]
        share = [each / settings.steps for each, settings in zip(work, tasks.values(), strict=True)]
        futures = [pool.submit(_cell, i, settings) for i, settings in enumerate(tasks.values())]
        try:
            _follow(futures, shared, advance, share, whole)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    results |= {name: future.result() for name, future in zip(tasks, futures, strict=True)}
    return {name: results[name] for name in cells}


def gather(cells: Mapping[str, Settings], folder: Path, file: Path, workers: int = 2) -> Path:
    """Run every cell that the file of gathered records does not hold yet, and add it there.

    Args:
        cells: settings by name.
        folder: of the runs.
        file: the gathered records, one run a line; paths of this machine are left out. A cell that it holds with
            the same settings is not run again, so the runs may be spread over days and machines.
        workers: processes at a time.

    Returns:
        The file. After an interruption it holds what has ended.
    """
    found = {row["cell"]: row for row in read_lines(file)} if file.exists() else {}
    rows = {name: row for name, row in found.items() if name in cells and _recorded(row) == _portable(cells[name])}
    todo = {name: settings for name, settings in cells.items() if name not in rows}
    if rows:
        note(f"{len(cells) - len(todo)} of {len(cells)} runs are in {file} already")
    try:
        run_cells(todo, folder, workers)
    finally:
        for name, settings in todo.items():
            if result := _ended(replace(settings, out=str(folder / name))):
                (told,) = Record(folder / name).read("settings")
                del result["record"]
                rows[name] = {
                    "cell": name, **result, "settings": _portable(settings), "environment": told["environment"]
                }  # fmt: skip
        lines_to(file, [rows[name] for name in cells if name in rows])
    return file


def _recorded(row: dict[str, Any]) -> dict[str, Any] | None:
    """A row's settings; those that came later than the row have the values that they had before."""
    try:
        return _portable(Settings(**row["settings"]))
    except (TypeError, ValueError):
        return None  # a setting of then is gone, or refused today


def _portable(s: Settings) -> dict[str, Any]:
    """The settings as a record has them, without this machine's paths."""
    settings = json.loads(to_json(asdict(s)))
    return {name: value for name, value in settings.items() if name not in ("out", "data_dir")}


def work_of(s: Settings) -> float:
    """How long a run takes, up to a factor: its layers' multiplications, times what the method does with them."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        channels, side = IMAGES[s.data]
        run_parts(network(s), torch.empty(2, channels, side, side))
    forward = counter.get_total_flops() / 2 + 1e5  # of an example, and what small nets spend otherwise
    return s.steps * s.batch * forward * {"no-bprop": 1.5, "bprop": 3}.get(s.method, 4)


def _ended(s: Settings) -> dict[str, Any] | None:
    """The result of a run that has ended with these settings."""
    folder = Path(str(s.out))
    if not Record(folder).path.exists() or recorded(folder) != s or not Record(folder).read("result"):
        return None
    return resume(folder)


def _follow(
    futures: list[Future[Any]], shared: Any, advance: list[Any], share: list[float], whole: Callable[..., None]
) -> None:
    shown = [0] * len(futures)
    while True:
        ended = [future.done() for future in futures]
        for i, future in enumerate(futures):
            done = int(shared[2 * i])
            if done > shown[i]:
                advance[i](done, shared[2 * i + 1])
                shown[i] = done
            if ended[i] and (error := future.exception()):
                raise KeyboardInterrupt if isinstance(error, Interrupted) else error
        whole(sum(ended), sum(done * each for done, each in zip(shown, share, strict=True)))
        if all(ended):
            return
        time.sleep(0.1)


def _start(shared: Any) -> None:
    global _shared
    _shared = shared
    os.environ["OMP_NUM_THREADS"] = "1"


def _cell(index: int, settings: Settings) -> dict[str, Any]:
    def progress(done: int, error: float) -> None:
        _shared[2 * index + 1] = error
        _shared[2 * index] = done

    folder = Path(str(settings.out))
    if not Record(folder).path.exists():
        return run(settings, progress)
    if recorded(folder) == settings:
        try:
            result = resume(folder, progress)
            progress(settings.steps, result["validation_error"])
            return result
        except FileNotFoundError:
            pass  # it died before its first checkpoint
    kept = folder.with_name(f"{folder.name}.{datetime.now():%Y%m%d-%H%M%S}")
    folder.rename(kept)
    note(f"{folder.name}: what was there has other settings or no checkpoint, and is now {kept.name}")
    return run(settings, progress)
