"""Tables of the feed-forward experiment, computed from gathered records."""

from __future__ import annotations

import statistics
from typing import Any

from synthgrad_lab.feedforward import paper
from synthgrad_lab.feedforward.settings import LABELS, TRAINING, Method
from synthgrad_lab.reporting.statistics import grouped, mean, one_experiment, spread
from synthgrad_lab.running.jsonl import Row

MAIN: tuple[Method, ...] = ("no-bprop", "bprop", "local-loss", "dni", "cdni", "critic")
"""Methods that the table of errors shows."""
EXTRA = ("p0.05", "complete", "long", "21x", "fp32")
"""Words in the names of cells that belong to no table of the paper's."""


def errors(records: list[Row]) -> list[dict[str, str]]:
    """Test error by network and method, the paper's number in brackets."""
    rows = []
    for (recipe, layers), runs in _networks(records).items():
        methods = grouped(runs, lambda r: (r["method"],))
        row = _network(recipe, layers, runs)
        for method in MAIN:
            row[LABELS[method]] = _beside(methods.get((method,)), recipe, method, layers)
        best = {m: mean(methods[m,]) for m in ("cdni", "critic", "dni") if (m,) in methods}
        if best and ("bprop",) in methods:
            least = min(best, key=lambda m: best[m])
            row["best decoupled over Bprop"] = f"{best[least] - mean(methods['bprop',]):+.2f} ({LABELS[least]})"
        rows.append(row)
    return rows


def baselines(records: list[Row]) -> list[dict[str, str]]:
    """Test error of the baselines beside Bprop and the decoupled methods, where all were run."""
    shown = ("bprop", "local-loss", "stale", "feedback-alignment", "cdni", "critic")
    rows = []
    for (recipe, layers), runs in _networks(records).items():
        methods = grouped(runs, lambda r: (r["method"],))
        if ("stale",) in methods:
            row = _network(recipe, layers, runs)
            rows.append(row | {LABELS[m]: spread(methods[m,]) if (m,) in methods else "" for m in shown})
    return rows


def variants(records: list[Row]) -> list[dict[str, str]]:
    """Depth, sparse updates, complete unlock, long runs."""
    chosen = [r for r in records if any(word in r["cell"] for word in EXTRA)]
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
        for runs in grouped(chosen, lambda r: (r["cell"].rpartition("-seed")[0],)).values()
    ]


def costs(records: list[Row]) -> list[dict[str, str]]:
    """Time, parameters and memory of each method relative to Bprop's on the same network, at the greatest depth."""
    rows = []
    networks = _networks(records)
    for recipe in dict.fromkeys(recipe for recipe, _ in networks):
        layers = max(n for name, n in networks if name == recipe)
        methods = grouped(networks[recipe, layers], lambda r: (r["method"],))
        base = methods.get(("bprop",))
        for (method,), runs in methods.items() if base else ():

            def ratio(name: str, runs: list[Row] = runs, base: list[Row] = base or []) -> float:
                return _median(runs, name) / _median(base, name)

            extra = _median(runs, "model_parameters") / _median(runs, "parameters")
            rows.append(
                {
                    "network": f"{recipe}, {layers} layers, width {runs[0]['width']}",
                    "method": LABELS[method],
                    "s/step × Bprop": f"{ratio('seconds_per_step'):.2f}",
                    "parameters beside the layers'": f"{100 * extra:+.0f} %",
                    "peak memory of a step, MB": f"{_median(runs, 'peak_memory_mb'):.1f}",
                    "× Bprop": f"{ratio('peak_memory_mb'):.2f}",
                }
            )
    return rows


def stability(records: list[Row]) -> list[dict[str, str]]:
    """Validation error by change (row) and method (column)."""
    rows = []
    for (change,), runs in grouped(records, lambda r: (r["cell"].split("--")[1],)).items():
        row = {"change": change}
        for (method, layers), same in grouped(runs, lambda r: (r["method"], r["layers"])).items():
            row[f"{LABELS[method]}, {layers} layers"] = spread(same, "validation_error")
        rows.append(row)
    return rows


def sparse(records: list[Row]) -> list[dict[str, str]]:
    """Test error over p_update, a row per method and kind of unlock."""
    rows = []
    for (_, method, unlock), runs in grouped(
        records, lambda r: (r["steps"], r["method"], r["settings"]["unlock"])
    ).items():
        by_p = grouped(runs, lambda r: (r["settings"]["p_update"],))
        row = {"method": f"{LABELS[method]}, {unlock}", "steps": f"{runs[0]['steps']:,}"}
        rows.append(row | {f"p = {p:g}": spread(by_p[p,]) for (p,) in sorted(by_p)})
    return rows


def _networks(records: list[Row]) -> dict[tuple[Any, ...], list[Row]]:
    plain = [r for r in records if not any(word in r["cell"] for word in EXTRA)]
    return grouped(plain, lambda r: (r["recipe"], r["layers"]))


def _network(recipe: str, layers: int, runs: list[Row]) -> dict[str, str]:
    r = runs[0]
    epochs = r["steps"] * r["settings"]["batch"] / TRAINING[r["data"]]
    size = f"{r['width']} (paper {paper.WIDTHS[recipe]})" if r["width"] != paper.WIDTHS[recipe] else str(r["width"])
    counts = sorted(len(each) for each in grouped(runs, lambda r: (r["method"],)).values())
    seeds = str(counts[0]) if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"
    return {"network": recipe, "layers": str(layers), "width": size, "epochs": f"{epochs:.1f}", "seeds": seeds}


def _beside(runs: list[Row] | None, recipe: str, method: str, layers: int) -> str:
    if not runs:
        return ""
    known = paper.reported(runs[0]["data"], recipe, method, layers)
    return spread(runs) + (f" [{known:.1f}]" if known is not None else "")


def _median(runs: list[Row], name: str) -> float:
    return statistics.median(r[name] for r in one_experiment(runs))


def every_layer(records: list[Row]) -> list[dict[str, str]]:
    """Test error by network and method, seeds together."""
    groups = grouped(records, lambda r: (r["layers"], r["steps"], r["method"], _linear(r)))
    rows = []
    for (layers, steps, method, linear), runs in sorted(groups.items(), key=_order):
        bprop = groups.get((layers, steps, "bprop", False))
        gap = f"{mean(runs) - mean(bprop):+.2f}" if bprop else ""
        known = paper.reported("mnist", "mnist-fcn", method, layers, 256)
        rows.append(
            {
                "method": LABELS[method] + (", linear M" if linear else ""),
                "layers": str(layers),
                "steps": f"{steps:,}",
                "seeds": str(len(runs)),
                "test error %": spread(runs, "test_error"),
                "over Bprop": "" if method == "bprop" else gap,
                "validation error %": spread(runs, "validation_error"),
                "paper, 500k steps": "" if known is None else f"{known:.1f}",
            }
        )
    return rows


def demo(records: list[Row]) -> list[dict[str, str]]:
    """All methods at 4 layers and 3,000 steps, for the README."""
    rows = every_layer([r for r in records if _default(r)])
    return [{k: row[k] for k in ("method", "test error %", "paper, 500k steps")} for row in rows]


def quality(records: list[Row]) -> list[dict[str, str]]:
    """Cosine and relative error at the end of training, per interface, seeds averaged."""
    rows = []
    for method in ("dni", "cdni"):
        runs = one_experiment([r for r in records if r["method"] == method and _default(r)])
        for name in runs[0]["quality"] if runs else ():
            row = {"method": f"{LABELS[method]}, {name}"}
            for measure in runs[0]["quality"][name]:
                row[measure.replace("_", " ")] = f"{statistics.mean(r['quality'][name][measure] for r in runs):.2f}"
            rows.append(row)
    return rows


def _linear(r: Row) -> bool:
    return r["method"] == "cdni" and r["settings"]["model"]["depth"] == 0


def _default(r: Row) -> bool:
    return (r["layers"], r["steps"]) == (4, 3000) and not _linear(r)


def _order(item: tuple[tuple[Any, ...], Any]) -> tuple[Any, ...]:
    layers, steps, method, linear = item[0]
    return steps, layers, list(LABELS).index(method), linear
