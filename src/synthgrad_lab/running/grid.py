"""Several runs at once, one process each: finished ones are kept, interrupted ones are resumed."""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from synthgrad_lab.running.console import Bars
from synthgrad_lab.running.loop import resume, run
from synthgrad_lab.running.run_folder import begun, ended, is_run_of, put_aside
from synthgrad_lab.running.settings import Settings
from synthgrad_lab.running.stops import Diverged, Interrupted

log = logging.getLogger(__name__)
_LISTED = 16  # with more runs than this, bars of finished ones disappear
_parent = os.getppid()  # in a worker: the process that started it
_shared: Any = None  # in a worker: (steps done, measure) of every run, read by the parent for its bars


def run_grid(
    runs: Mapping[str, Settings],
    folder: Path,
    workers: int = 2,
    keep: Callable[[str, dict[str, Any]], None] = lambda name, result: None,
) -> dict[str, dict[str, Any]]:
    """Run every run to its end, each in ``folder/name``.

    Args:
        runs: settings by name.
        folder: of the runs; a run that has ended there with the same settings is not run again.
        workers: processes at a time.
        keep: called with each run's name and result as soon as it has ended.

    Returns:
        Each run's result, by name.

    Raises:
        KeyboardInterrupt: after Ctrl-C; every run under way has been stopped with its checkpoint.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tasks = {name: replace(settings, out=str(folder / name)) for name, settings in runs.items()}
    results = {name: result for name, settings in tasks.items() if (result := _ended(settings))}
    tasks = {name: settings for name, settings in tasks.items() if name not in results}
    for name, result in results.items():
        keep(name, result)
    if not tasks:
        return results
    if results:
        log.info("%d of %d runs have ended already and are kept", len(results), len(runs))
    for settings in {settings.data_key: settings for settings in tasks.values()}.values():
        settings.download()  # once, not by every worker
    context = multiprocessing.get_context("spawn")
    shared = context.Array("d", 2 * len(tasks))
    brief = len(tasks) > _LISTED
    with Bars(brief) as bars, ProcessPoolExecutor(workers, context, _start, (shared,)) as pool:
        work = [settings.cost() for settings in tasks.values()]
        whole = bars.whole(len(tasks), sum(work))
        advance = [bars.bar(name, settings.steps, settings.progress_format) for name, settings in tasks.items()]
        share = [each / settings.steps for each, settings in zip(work, tasks.values(), strict=True)]
        futures = [pool.submit(_work, i, settings) for i, settings in enumerate(tasks.values())]
        try:
            for i in _watch(futures, shared, advance, share, whole):
                keep(list(tasks)[i], futures[i].result())
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    results |= {name: future.result() for name, future in zip(tasks, futures, strict=True)}
    return {name: results[name] for name in runs}


def _ended(s: Settings) -> dict[str, Any] | None:
    """The result of a run that has ended with these settings."""
    folder = Path(str(s.out))
    return ended(folder) if is_run_of(folder, s) else None


def _watch(
    futures: list[Future[Any]], shared: Any, advance: list[Any], share: list[float], whole: Callable[..., None]
) -> Iterator[int]:
    """Update the bars until all runs have ended; yields the number of each that ends well.

    A run that diverges does not stop the others; its error is raised when they have ended.
    """
    shown, ended = [0] * len(futures), [False] * len(futures)
    diverged: list[BaseException] = []
    while not all(ended):
        for i, future in enumerate(futures):
            over = future.done()  # before the last look at its steps
            done = int(shared[2 * i])
            if done > shown[i]:
                advance[i](done, shared[2 * i + 1])
                shown[i] = done
            if not over or ended[i]:
                continue
            ended[i] = True
            error = future.exception()
            if error is None:
                yield i
            elif isinstance(error, Diverged):
                log.warning("%s The other runs continue.", error)
                diverged.append(error)
            else:
                raise KeyboardInterrupt if isinstance(error, Interrupted) else error
        whole(sum(ended), sum(done * each for done, each in zip(shown, share, strict=True)))
        time.sleep(0.1)
    if diverged:
        raise diverged[0]


def _start(shared: Any) -> None:
    global _shared
    _shared = shared
    os.environ["OMP_NUM_THREADS"] = "1"


def _orphaned() -> bool:
    return os.getppid() != _parent


def _work(index: int, settings: Settings) -> dict[str, Any]:
    def progress(done: int, error: float) -> None:
        if _orphaned():
            signal.raise_signal(signal.SIGTERM)  # the run stops with a checkpoint
        _shared[2 * index + 1] = error
        _shared[2 * index] = done

    folder = Path(str(settings.out))
    try:
        if is_run_of(folder, settings):
            result = resume(folder, settings, progress)
            progress(settings.steps, result.get("validation_error", result.get("validation", math.nan)))
            return result
        if begun(folder):
            put_aside(folder)
        return run(settings, progress)
    except Interrupted:
        if _orphaned():
            os._exit(1)  # a pool's process would wait for its next task for ever
        raise
