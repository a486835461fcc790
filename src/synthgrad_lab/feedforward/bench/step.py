"""The time of a training step, measured beside what its arithmetic alone predicts, and its peak memory."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from synthgrad_lab.feedforward.networks import CLASSES, IMAGES
from synthgrad_lab.feedforward.profiling import peak
from synthgrad_lab.feedforward.recipes import mnist_fcn
from synthgrad_lab.feedforward.settings import Method, Settings
from synthgrad_lab.feedforward.trainer import Trainer
from synthgrad_lab.running.jsonl import Row
from synthgrad_lab.running.measure import Step, interleaved
from synthgrad_lab.running.settings import vary


def cases(width: int) -> dict[str, Settings]:
    """Four cases: backpropagation, and decoupled layers with three kinds of gradient model."""
    bprop, cdni, dni = (replace(mnist_fcn(method), width=width) for method in ("bprop", "cdni", "dni"))
    return {
        "Bprop": bprop,
        "cDNI, linear M": vary(cdni, {"model.depth": 0}),
        f"cDNI, bottleneck M ({cdni.model.hidden})": cdni,
        "DNI, paper's M (2 x 1024)": vary(dni, {"model.hidden": 1024, "model.depth": 2, "model.norm": True}),
    }


def bench_step(width: int, repeats: int = 15, progress: Callable[[int], None] = lambda done: None) -> list[Row]:
    """Time a step of each case at one width, with one thread, in turn; ``progress`` gets the number of rounds done.

    Returns:
        A row per case: ``width, case, ms, ratio`` (to Bprop, median over rounds), ``arithmetic`` (ratio of the counted
        floating-point operations of matrix products), ``overhead`` (ratio / arithmetic), ``by_hand`` (ratio of the
        same step written out without the library) and ``interface`` (ratio / by_hand).
    """
    settings = cases(width)
    batch = batch_of(next(iter(settings.values())))
    trainers = {case: Trainer(s) for case, s in settings.items()}
    steps: dict[str, Step] = {case: lambda t=t: t.step(*batch) for case, t in trainers.items()}
    steps |= {f"{case} by hand": _by_hand(Trainer(s), *batch) for case, s in settings.items() if "DNI" in case}
    times = interleaved(steps, repeats, progress)
    flops = {case: _flops(steps[case]) for case in settings}
    rows = []
    for case in settings:
        ratio = _ratio(times[case], times["Bprop"])
        by_hand = _ratio(times.get(f"{case} by hand", times[case]), times["Bprop"])
        arithmetic = flops[case] / flops["Bprop"]
        measured = {"ms": 1000 * statistics.median(times[case]), "ratio": ratio, "arithmetic": arithmetic}
        derived = {"overhead": ratio / arithmetic, "by_hand": by_hand, "interface": ratio / by_hand}
        rows.append({"width": width, "case": case, **measured, **derived})
    return rows


def relative_cost(settings: Mapping[str, Settings], repeats: int = 15) -> dict[str, float]:
    """Seconds per step relative to ``"Bprop"``'s: measured in turn with one thread, median over rounds."""
    batch = batch_of(next(iter(settings.values())))
    trainers = {name: Trainer(s) for name, s in settings.items()}
    times = interleaved({name: lambda t=t: t.step(*batch) for name, t in trainers.items()}, repeats)
    return {name: _ratio(values, times["Bprop"]) for name, values in times.items()}


def _ratio(times: list[float], against: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(times, against, strict=True))


def peak_of_chain(method: Method, depth: int, width: int, batch: int) -> int:
    """Bytes at the highest point of a step of a chain of equal layers, above what was allocated before it."""
    trainer = Trainer(replace(mnist_fcn(method), layers=depth, width=width, batch=batch))
    trainer.parts[0] = nn.Sequential(nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU())
    return peak(trainer, torch.rand(batch, width), torch.randint(10, (batch,)))


def batch_of(s: Settings) -> tuple[Tensor, Tensor]:
    """Random images and labels: a step on them takes the same time as on real ones."""
    generator = torch.Generator().manual_seed(0)
    channels, side = IMAGES[s.data]
    x = torch.rand(s.batch, channels, side, side, generator=generator)
    return x, torch.randint(CLASSES, (s.batch,), generator=generator)


def _flops(step: Step) -> int:
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def _by_hand(trainer: Trainer, x: Tensor, y: Tensor) -> Step:
    """The unlocked step written out for this net, without units, checks or an interface."""
    parts, models = trainer.parts, [interface.gradient_model for interface in trainer.interfaces]
    context = trainer.method.context(y)

    def step() -> None:
        h, prediction = x, None
        for k, part in enumerate(parts):
            leaf = h.detach().requires_grad_(k > 0)
            h = part(leaf)
            if k < len(models):
                upper = models[k](h.detach(), context)
                h.backward(upper.detach())
            else:
                upper = None
                F.cross_entropy(h, y).backward()
            if prediction is not None:
                F.mse_loss(prediction, leaf.grad).backward()  # pyright: ignore[reportArgumentType]
            trainer.update(k)
            prediction = upper

    return step
