"""Many runs at once, one process each: finished ones are kept, interrupted ones go on."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from synthgrad_lab.progress import Bars
from synthgrad_lab.recipes import Settings
from synthgrad_lab.record import Record, note
from synthgrad_lab.run import Interrupted, recorded, resume, run
from synthgrad_lab.tasks import load

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
    for data, data_dir in {(settings.data, settings.data_dir) for settings in cells.values()}:
        load(data, data_dir)  # fetched once, not by every worker
    tasks = {name: replace(settings, out=str(folder / name)) for name, settings in cells.items()}
    context = multiprocessing.get_context("spawn")
    shared = context.Array("d", 2 * len(tasks))
    with Bars() as bars, ProcessPoolExecutor(workers, context, _start, (shared,)) as pool:
        advance = [bars.bar(name, settings.steps) for name, settings in tasks.items()]
        futures = [pool.submit(_cell, i, settings) for i, settings in enumerate(tasks.values())]
        try:
            _follow(futures, shared, advance)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return {name: future.result() for name, future in zip(tasks, futures, strict=True)}


def _follow(futures: list[Future[Any]], shared: Any, advance: list[Any]) -> None:
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
