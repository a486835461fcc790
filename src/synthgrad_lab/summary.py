"""Runs read back from their folders, gathered into groups of seeds, and the numbers of each group."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthgrad_lab import paper
from synthgrad_lab.config import METHODS, SHOWN
from synthgrad_lab.grouping import Told, apart, told
from synthgrad_lab.kinds import IMAGES, Kind, kind_of
from synthgrad_lab.record import Record
from synthgrad_lab.versions import FIRST, recorded_version

Key = tuple[str, int, int, str, int, str]
"""A group: data (and kind of net), layers, width, method, steps, and the settings that set it apart from groups
that are equal in these. Its runs differ in nothing but what is a single run's own: they are repetitions."""


@dataclass(frozen=True)
class Run:
    """One run as its record tells it."""

    folder: Path
    settings: dict[str, Any]
    environment: dict[str, Any]
    points: list[dict[str, Any]]
    """Of the curve, in order."""
    events: list[dict[str, Any]]
    """The timeline of one step; empty if the run has not ended."""
    result: dict[str, Any] | None
    """None if the run has not ended."""
    state: str
    """In words: finished, interrupted at step 40 of 200, ..."""
    launch: dict[str, Any] | None = None
    """Of a run in stages: how it was cut and where it ran."""
    version: int = FIRST
    """Of its recipe."""

    @property
    def kind(self) -> Kind:
        """What its recipe is about."""
        return kind_of(self.settings.get("recipe"))

    @property
    def classifies(self) -> bool:
        """Whether it is a run on images, in one process."""
        return self.kind is IMAGES and self.launch is None

    @property
    def decides(self) -> Told:
        """All that decides the run and is not its own."""
        launch = {} if self.launch is None else {"launch": self.launch}
        return told({"settings": self.settings, "recipe_version": self.version, **launch})

    @property
    def shown(self) -> tuple[str, int, int, str, int]:
        """What tables and figures show of a run on images anyway."""
        s = self.settings
        images = s["data"] + (", convolutional" if s.get("net") == "cnn" else "")
        return images, s["layers"], s["width"], s["method"], s["steps"]


def shown(method: str, settings: str = "") -> str:
    """A method's name in tables and figures, with the settings that set a group apart."""
    name = SHOWN.get(method, method)
    return f"{name} ({settings})" if settings else name


def runs_under(place: Path) -> list[Path]:
    """The run folders at or below a place; the place itself if there is none, for ``read`` to tell."""
    return sorted(path.parent for path in place.rglob("record.jsonl")) or [place]


def read(folders: Sequence[Path]) -> tuple[list[Run], list[Path]]:
    """Read run folders.

    Args:
        folders: one per run.

    Returns:
        The runs, recurrent ones too, and the folders that hold none.

    Raises:
        FileNotFoundError: if a folder does not exist, or none of them holds a run.
        ValueError: if no folder is given.
    """
    if not folders:
        raise ValueError("nothing to report: no run folder was given")
    if missing := [str(folder) for folder in folders if not folder.is_dir()]:
        raise FileNotFoundError(f"no such folder: {', '.join(missing)}")
    runs = {folder: _read(folder) for folder in dict.fromkeys(folders)}
    if not any(runs.values()):
        raise FileNotFoundError(
            f"nothing to report: {', '.join(map(str, runs))} holds no run (a record.jsonl that starts with "
            "the run's settings); give run folders, or folders of them"
        )
    return [run for run in runs.values() if run], [folder for folder, run in runs.items() if not run]


def _read(folder: Path) -> Run | None:
    record = Record(folder)
    try:
        lines = record.read()
        first = next(line for line in lines if line["kind"] == "settings")
        return Run(
            folder=folder,
            settings=first["settings"],
            environment=first.get("environment", {}),
            points=[line for line in lines if line["kind"] == "point"],
            events=next((line["events"] for line in reversed(lines) if line["kind"] == "timeline"), []),
            result=next((line for line in reversed(lines) if line["kind"] == "result"), None),
            state=_state(lines, first["settings"].get("steps") or first["settings"]["updates"]),
            launch=first.get("launch"),
            version=recorded_version(first),
        )
    except (FileNotFoundError, StopIteration, KeyError, TypeError, UnicodeDecodeError):
        return None  # no record, or not one of ours


def _state(lines: list[dict[str, Any]], steps: int) -> str:
    kinds = [line["kind"] for line in lines]
    if "result" in kinds:
        return "finished"
    last = next((line for line in reversed(lines) if "step" in line), {"kind": "started", "step": 0})
    word = last["kind"] if last["kind"] in ("interrupted", "diverged") else "unfinished"
    return f"{word} at step {last['step']} of {steps}"


def set_apart(runs: Iterable[Run], shown: Callable[[Run], Any]) -> list[tuple[Run, str]]:
    """Each run with the settings in which it differs from others of which the same is shown, as text.

    Args:
        runs: of one kind.
        shown: what a table or figure shows of a run anyway.
    """
    return apart([(run, run.decides) for run in runs], shown)


def groups(runs: Iterable[Run]) -> dict[Key, list[Run]]:
    """Runs by group, the groups in the order of data, network, method (as in ``METHODS``), steps, settings."""
    found: dict[Key, list[Run]] = {}
    for run, settings in set_apart(runs, lambda run: run.shown):
        found.setdefault((*run.shown, settings), []).append(run)

    def place(key: Key) -> tuple[Any, ...]:
        order = METHODS.index(key[3]) if key[3] in METHODS else len(METHODS)
        return *key[:3], order, *key[3:]

    return {key: sorted(found[key], key=lambda r: r.settings["seed"]) for key in sorted(found, key=place)}


def rows(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """The numbers of each group of finished runs.

    Args:
        folders: run folders; those without a finished run are left out, so there may be no row.

    Returns:
        A dict per group: ``data``, ``layers``, ``width``, ``method``, ``steps``; ``settings`` (what else sets it
        apart, as text; mostly nothing); ``seeds`` (how many);
        ``test_error`` and ``validation_error`` in percent, means over the seeds, with ``test_deviation`` and
        ``validation_deviation`` (n - 1; None for one run); ``paper`` (percent after 500,000 iterations, or
        None); ``updates_per_layer``; ``seconds_per_step`` and ``cost``, the same over Bprop's on the same
        network and batch (None without Bprop); ``notes``, what makes a group less than repetitions.

    Raises:
        FileNotFoundError: as ``read``.
        ValueError: as ``read``.
    """
    return summarise(read(folders)[0])


def summarise(runs: Iterable[Run]) -> list[dict[str, Any]]:
    """``rows`` of runs that are read already; empty if none is finished."""
    finished = groups(run for run in runs if run.result and run.classifies)
    bprop: dict[tuple[Any, ...], list[float]] = {}
    for key, members in finished.items():
        if key[3] == "bprop":
            times = [run.result["seconds_per_step"] for run in members if run.result]
            bprop.setdefault(_work(members[0]), []).extend(times)
    found = []
    for key, members in finished.items():
        row, base = _row(key, members), statistics.fmean(bprop.get(_work(members[0]), [0]))
        found.append({**row, "cost": row["seconds_per_step"] / base if base else None})
    return found


def _work(run: Run) -> tuple[Any, ...]:
    """What makes two methods' times per step comparable: network, batch, arithmetic."""
    return *run.shown[:3], *(run.decides.get(name) for name in ("batch", "precision", "augment"))


def _mixes(run: Run) -> bool:
    """Whether true gradients are mixed in: not what the paper's table is about."""
    lam = run.settings.get("lam", 0)
    return any(lam) if isinstance(lam, list | tuple) else lam > 0


def _row(key: Key, runs: list[Run]) -> dict[str, Any]:
    data, layers, width, method, steps, settings = key
    results = [run.result for run in runs if run.result]
    seeds = [run.settings["seed"] for run in runs]

    def mean(name: str) -> float:
        return statistics.fmean(r[name] for r in results)

    def deviation(name: str) -> float | None:
        return statistics.stdev(r[name] for r in results) if len(results) > 1 else None

    notes = []
    if len(images := sorted({str(r.get("images", "")) for r in results})) > 1:
        notes.append(f"images differ: {', '.join(images)}")
    if len(set(seeds)) < len(seeds):
        notes.append("a seed came twice: the deviation is too small")
    first = runs[0].settings
    published = paper.reported(first["data"], first.get("recipe", ""), method, layers, width)
    per_layer = zip(*(r["updates_per_layer"] for r in results), strict=True)
    return {
        **{"data": data, "layers": layers, "width": width, "method": method, "steps": steps},
        **{"settings": settings, "seeds": len(seeds)},
        "test_error": mean("test_error"),
        "test_deviation": deviation("test_error"),
        "validation_error": mean("validation_error"),
        "validation_deviation": deviation("validation_error"),
        "paper": None if any(_mixes(run) for run in runs) else published,
        "updates_per_layer": [round(statistics.fmean(counts)) for counts in per_layer],
        "seconds_per_step": mean("seconds_per_step"),
        "notes": notes,
    }
