"""Tables of the feed-forward experiments, computed from gathered records."""

from __future__ import annotations

import statistics
from typing import Any

from synthgrad_lab.feedforward import paper
from synthgrad_lab.feedforward.settings import LABELS, MAIN, METHODS, TRAINING
from synthgrad_lab.reporting import tables
from synthgrad_lab.reporting.documents import Lines, Table
from synthgrad_lab.reporting.statistics import grouped, mean, median, one_experiment, spread
from synthgrad_lab.running.jsonl import Row


def errors(records: list[Row]) -> Lines:
    """Test error by network and method, with the paper's number in brackets."""
    rows = []
    for recipe, layers, runs, methods in _networks(records):
        row = _network(recipe, layers, runs, methods)
        for method in MAIN:
            known = paper.reported(runs[0]["data"], recipe, method, layers)
            beside = "" if known is None else f" [{known:.1f}]"
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
        _network(recipe, layers, runs, methods)
        | {LABELS[m]: spread(methods[m]) if m in methods else "" for m in shown}
        for recipe, layers, runs, methods in _networks(records)
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
    networks = _networks(records)
    deepest = {recipe: layers for recipe, layers, *_ in sorted(networks, key=lambda network: network[1])}
    rows = []
    for recipe, layers, _, methods in networks:
        if layers != deepest[recipe] or "bprop" not in methods:
            continue
        base = {name: median(methods["bprop"], name) for name in ("seconds_per_step", "peak_memory_mb")}
        for method, runs in methods.items():
            ratio = {name: f"{median(runs, name) / value:.2f}" for name, value in base.items()}
            extra = median(runs, "model_parameters") / median(runs, "parameters")
            rows.append(
                {
                    "network": f"{recipe}, {layers} layers, width {runs[0]['width']}",
                    "method": LABELS[method],
                    "s/step × Bprop": ratio["seconds_per_step"],
                    "parameters beside the layers'": f"{100 * extra:+.0f} %",
                    "peak memory of a step, MB": f"{median(runs, 'peak_memory_mb'):.1f}",
                    "× Bprop": ratio["peak_memory_mb"],
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
                "paper, 500k steps": _papers(method, layers),
            }
        )
    return rows


def demo(records: list[Row]) -> Lines:
    """All methods on the 4-layer net after 3,000 steps, for the README."""
    rows = every_layer([r for r in records if _default(r)])
    return [{name: row[name] for name in ("method", "test error %", "paper, 500k steps")} for row in rows]


def quality(records: list[Row]) -> Lines:
    """Cosine and relative error of each interface at the end of training on 4 layers, means over the seeds."""
    chosen = [r for r in records if _default(r)]
    rows = []
    for method in ("dni", "cdni"):
        runs = one_experiment([r for r in chosen if r["method"] == method])
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


def _papers(method: str, layers: int) -> str:
    known = paper.reported("mnist", "mnist-fcn", method, layers)
    return "" if known is None else f"{known:.1f}"


def _networks(records: list[Row]) -> list[tuple[str, int, list[Row], dict[Any, list[Row]]]]:
    """The networks: recipe, layers, all records, records by method."""
    return [
        (recipe, layers, runs, grouped(runs, lambda r: r["method"]))
        for (recipe, layers), runs in grouped(records, lambda r: (r["recipe"], r["layers"])).items()
    ]


def _network(recipe: str, layers: int, runs: list[Row], methods: dict[Any, list[Row]]) -> dict[str, str]:
    """A row's first columns."""
    r, papers = runs[0], paper.WIDTHS[recipe]
    width = str(r["width"]) if r["width"] == papers else f"{r['width']} (paper {papers})"
    epochs = r["steps"] * r["settings"]["batch"] / TRAINING[r["data"]]
    least, most = (extreme(map(len, methods.values())) for extreme in (min, max))
    seeds = str(least) if least == most else f"{least} to {most}"
    return {"network": recipe, "layers": str(layers), "width": width, "epochs": f"{epochs:.1f}", "seeds": seeds}


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
