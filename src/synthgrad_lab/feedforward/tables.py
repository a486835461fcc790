"""Tables of the feed-forward experiments, computed from gathered records; a budget's page of them."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

from synthgrad_lab.feedforward import paper
from synthgrad_lab.feedforward.settings import LABELS, MAIN, METHODS, TRAINING, version_today
from synthgrad_lab.reporting import documents, tables
from synthgrad_lab.reporting.documents import Lines, Table
from synthgrad_lab.reporting.statistics import grouped, mean, median, one_experiment, spread
from synthgrad_lab.running.gather import records as read
from synthgrad_lab.running.jsonl import Row


def errors(records: list[Row]) -> Lines:
    """Test error by network and method, with the paper's number in brackets."""
    rows = []
    for r, methods in _networks(records):
        row = _network(r, methods)
        for method in MAIN:
            known = _papers(r["data"], r["recipe"], method, r["layers"])
            beside = f" [{known}]" if known else ""
            row[LABELS[method]] = spread(methods[method]) + beside if method in methods else ""
        best = {m: mean(methods[m]) for m in ("cdni", "critic", "dni") if m in methods}
        if best and "bprop" in methods:
            least = min(best, key=lambda m: best[m])
            row["best decoupled over Bprop"] = f"{best[least] - mean(methods['bprop']):+.2f} ({LABELS[least]})"
        rows.append(row)
    return rows


def baselines(records: list[Row]) -> Lines:
    """Test error of the baselines, of Bprop and of decoupled methods, on networks where all baselines were run."""
    shown = ("bprop", "local-loss", "stale", "feedback-alignment", "cdni", "critic")
    return [
        _network(r, methods) | {LABELS[m]: spread(methods[m]) if m in methods else "" for m in shown}
        for r, methods in _networks(records)
        if "stale" in methods
    ]


def variants(records: list[Row]) -> Lines:
    """Depth, sparse updates, complete unlock, long runs."""
    return [
        {
            "network": runs[0]["recipe"],
            "method": LABELS[runs[0]["method"]],
            "layers": str(runs[0]["layers"]),
            "unlock": runs[0]["settings"]["unlock"] if runs[0]["quality"] else "",
            "p_update": f"{runs[0]['settings']['p_update']:g}",
            "precision": runs[0]["precision"],
            "steps": f"{runs[0]['steps']:,}",
            "seeds": str(len(runs)),
            "test error %": spread(runs),
            "validation error %": spread(runs, "validation_error"),
        }
        for runs in grouped(records, lambda r: r["variant"]).values()
    ]


def costs(records: list[Row]) -> Lines:
    """Time, parameters and memory of each method relative to Bprop's on the same network, at the greatest depth."""
    deepest = {r["recipe"]: r["layers"] for r in sorted(records, key=lambda r: r["layers"])}
    rows, names = [], ("seconds_per_step", "peak_memory_mb")
    for r, methods in _networks(records):
        if r["layers"] != deepest[r["recipe"]] or "bprop" not in methods:
            continue
        for method, runs in methods.items():
            time, memory = (f"{median(runs, name) / median(methods['bprop'], name):.2f}" for name in names)
            extra = median(runs, "model_parameters") / median(runs, "parameters")
            rows.append(
                {
                    "network": f"{r['recipe']}, {r['layers']} layers, width {runs[0]['width']}",
                    "method": LABELS[method],
                    "s/step × Bprop": time,
                    "parameters beside the layers'": f"{100 * extra:+.0f} %",
                    "peak memory of a step, MB": f"{median(runs, 'peak_memory_mb'):.1f}",
                    "× Bprop": memory,
                }
            )
    return rows


def stability(records: list[Row]) -> Lines:
    """Validation error by change (row) and method (column)."""
    rows = []
    for change, runs in grouped(records, lambda r: r["change"]).items():
        row = {"change": change}
        for (method, layers), same in grouped(runs, lambda r: (r["method"], r["layers"])).items():
            row[f"{LABELS[method]}, {layers} layers"] = spread(same, "validation_error")
        rows.append(row)
    return rows


def sparse(records: list[Row]) -> Lines:
    """Test error over p_update, a row per method and way of unlocking."""
    rows = []
    groups = grouped(records, lambda r: (r["steps"], r["method"], r["settings"]["unlock"]))
    for (steps, method, unlock), runs in groups.items():
        by_p = grouped(runs, lambda r: r["settings"]["p_update"])
        row = {"method": f"{LABELS[method]}, {unlock}", "steps": f"{steps:,}"}
        rows.append(row | {f"p = {p:g}": spread(by_p[p]) for p in sorted(by_p)})
    return rows


def every_layer(records: list[Row]) -> Lines:
    """Test error by number of layers and method."""
    groups = grouped(records, lambda r: (r["steps"], r["layers"], METHODS.index(r["method"]), _linear(r)))
    rows = []
    for (steps, layers, place, linear), runs in sorted(groups.items()):
        method = METHODS[place]
        bprop = groups.get((steps, layers, METHODS.index("bprop"), ""), [])
        rows.append(
            {
                "method": LABELS[method] + linear,
                "layers": str(layers),
                "steps": f"{steps:,}",
                "seeds": str(len(runs)),
                "test error %": spread(runs),
                "over Bprop": f"{mean(runs) - mean(bprop):+.2f}" if bprop and method != "bprop" else "",
                "validation error %": spread(runs, "validation_error"),
                "paper, 500k steps": _papers("mnist", "mnist-fcn", method, layers),
            }
        )
    return rows


def demo(records: list[Row]) -> Lines:
    """All methods on the 4-layer net after 3,000 steps, for the README."""
    rows = every_layer([r for r in records if _default(r)])
    return [{name: row[name] for name in ("method", "test error %", "paper, 500k steps")} for row in rows]


def quality(records: list[Row]) -> Lines:
    """Cosine and relative error of each interface at the end of training on 4 layers, means over the seeds."""
    rows = []
    for method in ("dni", "cdni"):
        runs = one_experiment([r for r in records if _default(r) and r["method"] == method])
        for name in runs[0]["quality"] if runs else ():
            row = {"method": f"{LABELS[method]}, {name}"}
            for measure in runs[0]["quality"][name]:
                row[measure.replace("_", " ")] = f"{statistics.mean(r['quality'][name][measure] for r in runs):.2f}"
            rows.append(row)
    return rows


def _default(r: Row) -> bool:
    return (r["layers"], r["steps"]) == (4, 3000) and not _linear(r)


def _linear(r: Row) -> str:
    """What is linear in a record's method, and is not by default."""
    linear = {"cdni": ", linear M", "local-loss": ", linear"}
    return linear.get(r["method"], "") if r["settings"]["model"]["depth"] == 0 else ""


def _papers(data: str, recipe: str, method: str, layers: int) -> str:
    known = paper.reported(data, recipe, method, layers)
    return "" if known is None else f"{known:.1f}"


def _networks(records: list[Row]) -> list[tuple[Row, dict[Any, list[Row]]]]:
    """The networks: the first record of each, and all its records by method."""
    found = grouped(records, lambda r: (r["recipe"], r["layers"])).values()
    return [(runs[0], grouped(runs, lambda r: r["method"])) for runs in found]


def _network(r: Row, methods: dict[Any, list[Row]]) -> dict[str, str]:
    """A row's first columns."""
    papers = paper.WIDTHS[r["recipe"]]
    width = str(r["width"]) if r["width"] == papers else f"{r['width']} (paper {papers})"
    epochs = r["steps"] * r["settings"]["batch"] / TRAINING[r["data"]]
    least, most = (extreme(map(len, methods.values())) for extreme in (min, max))
    seeds = str(least) if least == most else f"{least} to {most}"
    size = {"network": r["recipe"], "layers": str(r["layers"]), "width": width}
    return {**size, "epochs": f"{epochs:.1f}", "seeds": seeds}


TABLES: dict[str, Table] = {
    "every-layer": Table("feedforward/every-layer", every_layer, "reproduce every-layer"),
    "demo": Table("feedforward/every-layer", demo, "reproduce every-layer"),
    "quality": Table("feedforward/every-layer", quality, "reproduce every-layer"),
    "feedforward": Table("feedforward/paper-table", errors, "reproduce feedforward"),
    "baselines": Table("feedforward/paper-table", baselines, "reproduce feedforward"),
    "variants": Table("feedforward/variants", variants, "reproduce feedforward"),
    "costs": Table("feedforward/paper-table", costs, "reproduce feedforward"),
    "stability": Table("feedforward/stability", stability, "reproduce stability"),
    "sparse": Table("feedforward/sparse", sparse, "reproduce sparse"),
    **{
        f"bench-{name}": Table(f"feedforward/bench-{name}", tables.bench, f"bench {name} --record {file}")
        for name in ("step", "memory", "methods")
        for file in [f"results/feedforward/bench-{name}.jsonl"]
    },
}
"""Tables of documents, by name."""

PAGE = """# Feed-forward networks, every layer decoupled (budget: {budget})

Test error in percent, ± standard deviation over seeds; in brackets the paper's, after 500,000 steps of batch 256
at its own widths. Each row: equal epochs and updates for all methods. Images: {images}.
"""
"""The page of one budget, above its tables."""
PARTS = {
    "feedforward": "",
    "baselines": """Baselines: local loss (a classifier per layer), stale gradients (of earlier batches) and direct
feedback alignment.

""",
    "variants": "Depth, sparse updates (p_update), complete unlock, long runs, precision:\n\n",
    "costs": """## Costs

Medians over seeds, on the deepest net. Seconds per step are the runs' own, and include what other processes cost
them; `synthgrad bench methods` measures the methods in turn.

""",
}
"""The tables and the texts above them; a table without records is left out."""


def write_page(budget: str, path: Path, results: Path) -> Path:
    """Write a budget's page from the gathered records below ``results``: every error beside the paper's."""
    shown = {name: replace(TABLES[name], today=version_today) for name in PARTS}
    rows = {name: read(results / f"{table.records}.jsonl") for name, table in shown.items()}
    images = dict.fromkeys(row["images"] for row in rows["feedforward"])
    text = PAGE.format(budget=budget, images=", ".join(images))
    for name, introduction in PARTS.items():
        if shown[name].make(rows[name]):
            text += f"\n{introduction}<!-- table: {name} older -->\n<!-- end -->\n"
    return documents.write(path, text, shown, results)
