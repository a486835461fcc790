"""The commands that look at many runs: report, demo, reproduce, sweep; and env."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from rich.console import Console

from synthgrad_lab.record import environment, read_lines, to_json


def do_report(options: Namespace) -> None:
    """Write the page about runs."""
    from synthgrad_lab import report, report_sections
    from synthgrad_lab.summary import runs_under
    from synthgrad_lab.tables import plain

    if not options.folders and not Path("runs").is_dir():
        raise FileNotFoundError("there is no run under runs/; start one with: synthgrad run mnist-fcn")
    folders = [run for place in options.folders or ["runs"] for run in runs_under(Path(place))]
    path = report.write(folders, Path(options.out))
    rows, others = report.rows(folders), report_sections.lines(folders)
    if options.json:
        print(to_json({"report": str(path), "rows": rows, "others": others}))
        return
    for title, lines in others.items():
        Console().print(plain(title, lines))
    if rows or not others:
        Console().print(report.table(rows))
    print(f"report: {path}")


def do_demo(options: Namespace) -> None:
    """Run the main job, show its table, write its page."""
    from synthgrad_lab import report
    from synthgrad_lab.experiments.demo import demo

    out = Path(options.out)
    folders, cost = demo(out, options.steps, options.seeds, options.workers, options.data, options.data_dir)
    rows = report.rows(folders)
    path = report.write(folders, out / "report.html", cost=cost)
    if options.json:
        print(to_json({"rows": rows, "relative_cost": cost, "report": str(path)}))
        return
    Console().print(report.table(rows, cost))
    print(f"report: {path}")


def do_reproduce(options: Namespace) -> None:
    """Run a table of the results, or only write it from its records."""
    from synthgrad_lab import page
    from synthgrad_lab.experiments import clocks, feedforward, recurrent

    results, pages = Path(options.results), [Path(name) for name in options.pages]
    runs, kept = Path(options.out) / options.what, results
    budgeted: Any = {"feedforward": feedforward, "recurrent": recurrent}.get(options.what)
    if budgeted:
        runs = runs.with_name(f"{options.what}-{options.budget}")
        if options.budget != "standard":
            kept, pages = runs, []  # the documents report the standard one
    if not options.tables_only:
        _gather(options, runs, kept / f"{options.what}.jsonl")
    for text in pages:
        page.fill(text, results)
    if budgeted:
        pages.insert(0, budgeted.write_page(options.budget, runs, kept))
    if options.what == "clocks":
        pages.append(clocks.draw(results / "clocks.svg"))
    told = {"results": str(results), "pages": [str(path) for path in pages]}
    print(to_json(told) if options.json else "written: " + " ".join(told["pages"]))


def _gather(options: Namespace, runs: Path, file: Path) -> None:
    """Run what the file of gathered records does not hold yet."""
    from synthgrad_lab.experiments import clocks, every_layer, feedforward, recurrent, stability, stages
    from synthgrad_lab.experiments.gathering import gather

    match options.what:
        case "stages":
            stages.gather(runs, file)
        case "feedforward":
            cells = feedforward.cells(feedforward.BUDGETS[options.budget], options.cifar_dir)
            gather(cells, runs, file, options.workers)
        case "recurrent":
            budget = recurrent.BUDGETS[options.budget]
            gather(recurrent.cells(budget, options.text, options.tasks), runs, file, options.workers)
            # The other seeds run at the rates that were best.
            further = recurrent.cells(budget, options.text, options.tasks, read_lines(file))
            gather(further, runs, file, options.workers)
        case what:
            cells = {"every-layer": every_layer, "stability": stability, "clocks": clocks}[what].cells()
            gather(cells, runs, file, options.workers)


def do_sweep(options: Namespace) -> None:
    """Run a figure's runs and draw it."""
    from synthgrad_lab.experiments import sparse

    record = Path(options.record)
    if options.draw_only:
        path = sparse.draw(record)
    else:
        values = options.values or sparse.VALUES
        steps = options.steps or sparse.STEPS
        path = sparse.sweep(Path(options.out), record, values, steps, options.seeds, options.workers)
    print(to_json({"record": str(record), "figure": str(path)}) if options.json else f"figure: {path}")


def do_env(options: Namespace) -> None:
    """Show what a number depends on."""
    from synthgrad_lab.tasks.sources import cache_folder

    values = {**environment(), "cache": str(cache_folder())}
    if options.json:
        print(to_json(values))
        return
    for key, value in values.items():
        print(f"{key:15} {value}")
