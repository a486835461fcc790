"""Invented records of runs, for the tests of the report."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from synthgrad_lab.feedforward.recipes import mnist_fcn
from synthgrad_lab.running.record import Record, environment

ERRORS = {
    "no-bprop": 20.0,
    "bprop": 1.5,
    "local-loss": 2.5,
    "stale": 1.6,
    "feedback-alignment": 5.0,
    "dni": 3.0,
    "cdni": 2.0,
    "critic": 1.8,
}
SECONDS = {
    "no-bprop": 0.004,
    "bprop": 0.01,
    "local-loss": 0.012,
    "stale": 0.013,
    "feedback-alignment": 0.009,
    "dni": 0.04,
    "cdni": 0.02,
    "critic": 0.03,
}


def event(layer: int, kind: str, start: float, end: float) -> dict[str, Any]:
    return {"layer": layer, "kind": kind, "start": start, "end": end}


# Timelines of two layers, in whole milliseconds.
BPROP = [
    event(1, "forward", 0, 2), event(2, "forward", 2, 5), event(2, "loss", 5, 6), event(2, "backward", 6, 8),
    event(1, "backward", 8, 10), event(2, "update", 10, 11), event(1, "update", 11, 12),
]  # fmt: skip
DNI = [
    event(1, "forward", 0, 2), event(1, "loss", 2, 4), event(1, "backward", 4, 6), event(1, "update", 6, 7),
    event(2, "forward", 7, 10), event(2, "loss", 10, 11), event(2, "backward", 11, 13), event(2, "fit", 13, 16),
    event(2, "update", 16, 17),
]  # fmt: skip


def write(
    folder: Path, method: Any, seed: int = 0, error: float | None = None, ends: bool = True, **changes: Any
) -> Path:
    """Write a run of 20 steps with round numbers; ``changes`` are settings by dotted name, valid or not."""
    settings = asdict(replace(mnist_fcn(method), seed=seed, steps=20))
    for name, value in changes.items():
        *group, last = name.split(".")
        (settings[group[0]] if group else settings)[last] = value
    record = Record(folder)
    folder.mkdir()
    record.write("settings", family="feedforward", settings=settings, environment=environment())
    error = ERRORS[method] + seed / 10 if error is None else error
    measures = {"cosine": 0.5, "sign_agreement": 0.6, "norm_ratio": 0.4, "relative_error": 0.9}
    decoupled = method in ("dni", "cdni")
    quality = {f"h{k}": measures for k in range(1, settings["layers"])} if decoupled else {}
    for step in (10, 20):
        record.write("point", step=step, train_loss=1.0, validation_error=2 * error / step * 10, quality=quality)
    if ends:
        record.write("timeline", events=DNI if decoupled else BPROP)
        record.write(
            "result", test_error=error, validation_error=error + 0.5, quality=quality,
            updates_per_layer=[0, 0, 0, 20] if method == "no-bprop" else [20] * settings["layers"],
            seconds_per_step=SECONDS[method] * (1 + seed),
        )  # fmt: skip
    return folder
