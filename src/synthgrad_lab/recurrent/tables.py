"""Tables of the recurrent tasks, made from gathered records."""

from __future__ import annotations

import statistics
from functools import partial

from synthgrad_lab.recurrent.measures import MEASURES, best_rate
from synthgrad_lab.recurrent.paper import PAPER
from synthgrad_lab.reporting.documents import Lines, Table
from synthgrad_lab.reporting.statistics import grouped
from synthgrad_lab.reporting.tables import bench
from synthgrad_lab.running.jsonl import Row


def task_table(recipe: str, records: list[Row]) -> Lines:
    """A row per arm of the experiment, at its best learning rate."""
    found, measure = [], MEASURES[recipe]
    form = "{:.0f}" if measure.more_is_better else "{:.4f}"
    for arm, runs in grouped(records, lambda r: r["arm"]).items():
        best = best_rate(runs, recipe)
        values, settings = sorted(r[measure.result] for r in best), best[0]["settings"]
        row = {
            "arm": arm,
            "updates": f"{settings['steps']:,}",
            "learning rate": f"{settings['optimizer']['lr']:g}",
            "rates tried": str(len({r["settings"]["optimizer"]["lr"] for r in runs})),
            "seeds": str(len(best)),
            measure.label: form.format(statistics.median(values)),
            "worst seed": form.format(values[0 if measure.more_is_better else -1]),
        }
        if recipe.endswith("copy"):
            row["sequences"] = f"{statistics.median_low(r['sequences'] for r in best):,}"
        if settings["cell"] == "lstm" and any(recipe == task for task, _ in PAPER):
            row["paper"] = str(PAPER.get((recipe, settings["method"]), {}).get(settings["T"], ""))
        found.append(row)
    return found


BENCH = "recurrent/bench-recurrent"
TABLES = {
    **{r: Table(f"recurrent/{r}", partial(task_table, r), "reproduce recurrent") for r in MEASURES},
    "bench-recurrent": Table(BENCH, bench, f"bench recurrent --record results/{BENCH}.jsonl"),
}
