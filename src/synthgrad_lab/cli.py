"""The command ``synthgrad``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from synthgrad_lab.recipes import METHODS, RECIPES, Settings
from synthgrad_lab.record import environment, lines_to, note
from synthgrad_lab.settings import BadSetting, describe, nearest, override, words


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code (0 well, 1 failed, 2 wrong words, 130 interrupted)."""
    from synthgrad_lab.run import Interrupted

    options = _parser().parse_args(arguments)
    try:
        options.do(options)
    except BadSetting as error:
        note(f"synthgrad: {error}")
        return 2
    except Interrupted as stop:
        note(f"synthgrad: {stop}")
        return 130
    except KeyboardInterrupt:
        note("synthgrad: interrupted; what was recorded is kept, and the same command goes on with it")
        return 130
    except (OSError, ValueError, ArithmeticError) as error:
        note(f"synthgrad: {error}")
        return 1
    return 0


def _run(options: argparse.Namespace) -> None:
    from synthgrad_lab import run
    from synthgrad_lab.progress import Bars

    recipe, pairs = _recipe(options.words)
    if folder := pairs.pop("resume", None):
        if pairs or recipe:
            raise BadSetting("resume= goes on with a run's own settings; leave out everything else")
        settings = run.recorded(Path(folder))
    else:
        settings = _settings(recipe, pairs)
    with Bars() as bars:
        bar = bars.bar(f"{settings.method}, {settings.layers} layers", settings.steps)
        result = run.resume(Path(folder), bar) if folder else run.run(settings, bar)
    if options.json:
        print(json.dumps(result))
        return
    print(f"test error        {result['test_error']:.2f} %")
    print(f"validation error  {result['validation_error']:.2f} %")
    print(f"updates per layer {' '.join(map(str, result['updates_per_layer']))}")
    print(f"time per step     {1000 * result['seconds_per_step']:.2f} ms")
    for name, quality in result["quality"].items():
        print(f"quality at {name}     " + ", ".join(f"{k.replace('_', ' ')} {v:.2f}" for k, v in quality.items()))
    print(f"record            {result['record']}")


def _recipe(arguments: Sequence[str]) -> tuple[str | None, dict[str, str]]:
    plain = [word for word in arguments if "=" not in word]
    if len(plain) > 1:
        raise BadSetting(f"one recipe at a time, not {' and '.join(plain)}; settings are of the form key=value")
    return (plain[0] if plain else None), words(word for word in arguments if "=" in word)


def _settings(recipe: str | None, pairs: dict[str, str]) -> Settings:
    if recipe is None:
        raise BadSetting(f"which recipe? there are: {', '.join(RECIPES)}")
    if recipe not in RECIPES:
        raise BadSetting(f"unknown recipe {recipe!r}; {nearest(recipe, RECIPES)}")
    method = override(Settings(), {k: v for k, v in pairs.items() if k == "method"}).method
    if "recipe" in pairs:
        raise BadSetting("the recipe is the first word, not a setting")
    return override(RECIPES[recipe](method), pairs)


def _list(options: argparse.Namespace) -> None:
    if options.json:
        print(json.dumps({name: describe_recipe(name) for name in RECIPES}))
        return
    for name, recipe in RECIPES.items():
        print(f"{name}: {recipe.__doc__}\n")
        for key, default, text in describe(recipe("cdni")):
            print(f"  {key + '=' + default:24} {text}")
        for method in METHODS:
            changed = [
                f"{k}={v}" for k, v in describe_recipe(name, method).items() if v != describe_recipe(name)[k]
            ]
            print(f"\n  with {' '.join(changed)}" if changed[1:] else "", end="")
        print("\n")


def describe_recipe(name: str, method: Any = "cdni") -> dict[str, str]:
    """A recipe's settings, as texts."""
    return {key: default for key, default, _ in describe(RECIPES[name](method))}


def _report(options: argparse.Namespace) -> None:
    from synthgrad_lab import report

    folders = [Path(f) for f in options.folders] or sorted(p.parent for p in Path("runs").rglob("record.jsonl"))
    if not folders:
        raise FileNotFoundError("there is no run under runs/; start one with: synthgrad run mnist-fcn")
    path = report.write(folders, Path(options.out))
    rows = report.rows(folders)
    if options.json:
        print(json.dumps({"report": str(path), "rows": rows}))
        return
    Console().print(report.table(rows))
    print(f"report: {path}")


def _demo(options: argparse.Namespace) -> None:
    from synthgrad_lab import report
    from synthgrad_lab.experiments.demo import demo

    out = Path(options.out)
    folders, cost = demo(out, options.steps, options.seeds, options.workers, options.data, options.data_dir)
    rows = report.rows(folders)
    path = report.write(folders, out / "report.html", cost=cost)
    if options.json:
        print(json.dumps({"rows": rows, "relative_cost": cost, "report": str(path)}))
        return
    Console().print(report.table(rows, cost))
    print(f"report: {path}")


def _reproduce(options: argparse.Namespace) -> None:
    from synthgrad_lab import page
    from synthgrad_lab.experiments import every_layer

    results = Path(options.results)
    if not options.tables_only:
        every_layer.reproduce(Path(options.out) / options.what, results, options.workers)
    for text in options.pages:
        page.fill(Path(text), results)
    print(json.dumps({"results": str(results), "pages": options.pages}) if options.json else f"records: {results}")


def _bench(options: argparse.Namespace) -> None:
    from synthgrad_lab.bench.memory import DEPTHS, bench_memory
    from synthgrad_lab.bench.step import bench_step
    from synthgrad_lab.progress import Bars

    with Bars() as bars:
        if options.what == "step":
            rows = []
            for width in options.widths:
                bar = bars.bar(f"width {width}", options.repeats)
                rows += bench_step(width, options.repeats, lambda done, bar=bar: bar(done, float("nan")))
        else:
            bar = bars.bar("memory", 2 * len(DEPTHS))
            rows = bench_memory(progress=lambda done: bar(done, float("nan")))
    if options.record:
        lines_to(
            Path(options.record), [{"bench": options.what, **row, "environment": environment()} for row in rows]
        )
    if options.json:
        print(json.dumps({"bench": options.what, "rows": rows, "environment": environment()}))
        return
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*(f"{v:.2f}" if isinstance(v, float) else str(v) for v in row.values()))
    Console().print(table)


def _env(options: argparse.Namespace) -> None:
    from synthgrad_lab.tasks.sources import cache_folder

    values = {**environment(), "cache": str(cache_folder())}
    if options.json:
        print(json.dumps(values))
        return
    for key, value in values.items():
        print(f"{key:15} {value}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="synthgrad",
        description="Train the parts of a network without making them wait for each other, beside backprop.",
        epilog="example: synthgrad run mnist-fcn method=cdni steps=3000",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, do: Any, text: str, example: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text, epilog=f"example: {example}")
        sub.set_defaults(do=do)
        sub.add_argument(
            "--json", action="store_true", help="print one JSON object on standard output, nothing else"
        )
        return sub

    command("list", _list, "The recipes, their settings and defaults.", "synthgrad list")
    sub = command(
        "run", _run, "Run a recipe, or go on with a run.", "synthgrad run mnist-fcn method=dni layers=6 seed=1"
    )
    sub.add_argument(
        "words", nargs="*", metavar="RECIPE | key=value", help="see `synthgrad list`; resume=RUN_FOLDER goes on"
    )
    sub = command(
        "report", _report, "A self-contained HTML page about runs.", "synthgrad report runs/* --out report.html"
    )
    sub.add_argument("folders", nargs="*", help="run folders; all under runs/ without any")
    sub.add_argument("--out", default="report.html", help="the page (%(default)s)")
    sub = command(
        "demo", _demo, "Four methods beside each other on real MNIST, with a table and a report.", "synthgrad demo"
    )
    sub.add_argument(
        "--out", default="runs/demo", help="folder of its runs; a second call goes on there (%(default)s)"
    )
    sub.add_argument("--steps", type=int, default=3000, help="training steps per run (%(default)s)")
    sub.add_argument("--seeds", type=int, default=3, help="runs per method (%(default)s)")
    sub.add_argument("--workers", type=int, default=2, help="processes at a time, one thread each (%(default)s)")
    sub.add_argument("--data", choices=["mnist", "fashion-mnist"], default="mnist", help="the images (%(default)s)")
    sub.add_argument("--data-dir", help="a folder with the data's files")
    sub = command(
        "reproduce",
        _reproduce,
        "Run a table of docs/results.md (what has run already is kept) and write it from the records.",
        "synthgrad reproduce every-layer",
    )
    sub.add_argument("what", choices=["every-layer"])
    sub.add_argument("--out", default="runs", help="folder of the runs (%(default)s)")
    sub.add_argument("--results", default="results", help="folder of the gathered records (%(default)s)")
    sub.add_argument("--pages", nargs="*", default=["README.md", "docs/results.md"], help="to fill (%(default)s)")
    sub.add_argument("--tables-only", action="store_true", help="run nothing; write the tables from the records")
    sub.add_argument("--workers", type=int, default=2, help="processes at a time, one thread each (%(default)s)")
    sub = command(
        "bench", _bench, "What decoupling costs in time (step) or saves in memory.", "synthgrad bench step"
    )
    sub.add_argument("what", choices=["step", "memory"])
    sub.add_argument("--widths", type=int, nargs="+", default=[256, 1024], help="for step (%(default)s)")
    sub.add_argument("--repeats", type=int, default=15, help="rounds over all cases, for step (%(default)s)")
    sub.add_argument("--record", metavar="FILE", help="also write the rows to a .jsonl file")
    command("env", _env, "What a number here depends on: versions, processor, cache.", "synthgrad env --json")
    return parser


if __name__ == "__main__":
    sys.exit(main())
