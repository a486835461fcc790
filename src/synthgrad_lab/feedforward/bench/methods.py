"""The cost of each method on each of the paper's networks: time, parameters, memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from synthgrad_lab.feedforward.bench.step import batch_of, relative_cost
from synthgrad_lab.feedforward.budgets import BUDGETS
from synthgrad_lab.feedforward.profiling import peak
from synthgrad_lab.feedforward.recipes import RECIPES
from synthgrad_lab.feedforward.settings import LABELS, METHODS
from synthgrad_lab.feedforward.trainer import Trainer
from synthgrad_lab.running.jsonl import Row


def bench_methods(repeats: int, progress: Callable[[int], None]) -> list[Row]:
    """Time a step of every method on every network at 4 layers, with the standard budget's widths and one thread.

    Returns:
        A row per network and method: ``network``, ``method``, ``ratio`` (seconds per step over Bprop's, median over
        rounds), ``model_parameters`` (beside the layers', in percent of theirs), ``memory_mb`` (peak of a step
        above what was there before it) and ``memory_ratio`` (to Bprop).
    """
    rows: list[Row] = []
    for done, recipe in enumerate(RECIPES, start=1):
        chosen = {m: replace(BUDGETS["standard"].settings(recipe, m), layers=4) for m in METHODS}
        cost = relative_cost(chosen, against="bprop", repeats=repeats)
        trainers = {method: Trainer(s) for method, s in chosen.items()}
        memory = {m: peak(trainer, *batch_of(chosen[m])) / 2**20 for m, trainer in trainers.items()}
        for method, s in chosen.items():
            layers, beside = trainers[method].count_parameters()
            place = {"network": f"{recipe}, width {s.width}, batch {s.batch}", "method": LABELS[method]}
            time = {"ratio": cost[method], "model_parameters": 100 * beside / layers}
            space = {"memory_mb": memory[method], "memory_ratio": memory[method] / memory["bprop"]}
            rows.append({**place, **time, **space})
        progress(done)
    return rows
