"""The commands that look at many runs: report, demo, reproduce, sweep; and env."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from synthgrad_lab.families import AnySettings
from synthgrad_lab.running.gathered import records
from synthgrad_lab.running.jsonl import read_lines, to_json
from synthgrad_lab.running.record import environment, note
from synthgrad_lab.running.versions import is_todays, split, told


def do_report(options: Namespace) -> None:
    """Write the page about runs."""
    from synthgrad_lab.feedforward import report, report_sections
    from synthgrad_lab.reporting.runs import runs_under
    from synthgrad_lab.reporting.tables import plain

    if not options.folders and not Path("runs").is_dir():
        raise FileNotFoundError("there is no run under runs/; start one with: synthgrad run mnist-fcn")
    folders = [run for place in options.folders or ["runs"] for run in runs_under(Path(place))]
    path = report.write(folders, Path(options.out))
    rows, others = report.rows(folders), report_sections.lines(folders)
    if options.json:
        print(to_json({"report": str(path), "rows": rows, "others": others}))
        return
    for title, lines in others.items():
        _show(plain(title, lines))
    if rows or not others:
        _show(report.table(rows))
    print(f"report: {path}")


def do_demo(options: Namespace) -> None:
    """Run the main job, show its table, write its page."""
    from synthgrad_lab.feedforward import report
    from synthgrad_lab.feedforward.experiments.demo import demo

    out = Path(options.out)
    folders, cost = demo(out, options.steps, options.seeds, options.workers, options.data, options.data_dir)
    rows = report.rows(folders)
    path = report.write(folders, out / "report.html", cost=cost)
    if options.json:
        print(to_json({"rows": rows, "relative_cost": cost, "report": str(path)}))
        return
    _show(report.table(rows, cost))
    print(f"report: {path}")


def do_reproduce(options: Namespace) -> None:
    """Run a table of the results, or only write it from its records."""
    from synthgrad_lab.clocks import experiments as clocks
    from synthgrad_lab.feedforward.experiments import paper_table as feedforward
    from synthgrad_lab.recurrent import experiments as recurrent
    from synthgrad_lab.reporting import documents as page

    results = Path(options.results)
    runs, kept, pages = Path(options.out) / options.what, results, _documents(options.pages)
    budgeted: Any = {"feedforward": feedforward, "recurrent": recurrent}.get(options.what)
    if budgeted:
        runs = runs.with_name(f"{options.what}-{options.budget}")
        if options.budget != "standard":
            kept, pages = runs, []  # the documents report the standard one
    file = kept / f"{options.what}.jsonl"
    for text in pages:
        page.refuse_unfit(text.read_text(), results, file.name)
    if options.tables_only:
        _tell_lacking(options, file)
    else:
        _gather(options, runs, file)
    if others := split(records(file))[1]:
        note(f"{len(others)} records in {file} are of another version of their recipe: {told(others)}")
    for text in pages:
        page.fill(text, results)
    if not pages and not options.json:
        print("\n".join(page.markdown(rows) for rows in page.made(file)))
    if budgeted:
        pages.insert(0, budgeted.write_page(options.budget, runs, kept))
    if options.what == "clocks":
        pages.append(clocks.draw(results / "clocks.svg"))
    written = [str(path) for path in pages]
    print(
        to_json({"results": str(results), "pages": written})
        if options.json
        else "written: " + " ".join([str(file), *written])
    )


DOCUMENTS = ("README.md", "docs/results.md", "docs/scale.md")
"""With tables, in a clone of the repository."""


def _documents(asked: list[str] | None) -> list[Path]:
    """The documents to fill: those asked for, or the repository's; none outside a clone.

    Raises:
        FileNotFoundError: if one that is asked for does not exist.
    """
    if asked is None:
        pages = [Path(name) for name in DOCUMENTS]
        if all(path.is_file() for path in pages):
            return pages
        note("no document is updated: this folder is no clone of the repository (--pages names others)")
        return []
    if missing := [name for name in asked if not Path(name).is_file()]:
        raise FileNotFoundError(f"--pages: there is no {', '.join(missing)}; nothing was run")
    return [Path(name) for name in asked]


def _gather(options: Namespace, runs: Path, file: Path) -> None:
    """Run what the file of gathered records does not hold yet."""
    from synthgrad_lab.running.gather import gather
    from synthgrad_lab.stages import experiments as stages

    if options.what == "stages":
        stages.gather(runs, file, lambda name: _asked(name, options.only))
        return
    gather(_cells(options, []), runs, file, options.workers)
    if options.what == "recurrent":  # the other seeds run at the rates that were best
        gather(_cells(options, read_lines(file)), runs, file, options.workers)


def _cells(options: Namespace, rows: list[Any]) -> Mapping[str, AnySettings]:
    """The runs of an experiment by name; of the recurrent one, after those that have records, the next ones.

    Raises:
        ValueError: if no run's name holds one of the words that were asked for.
    """
    found = {name: s for name, s in _all_cells(options, rows).items() if _asked(name, options.only)}
    if not (found or rows):
        raise ValueError(f"--only {' '.join(options.only)}: no run of {options.what} is named so")
    return found


def _asked(name: str, only: list[str] | None) -> bool:
    return not only or any(word in name for word in only)


def _all_cells(options: Namespace, rows: list[Any]) -> Mapping[str, AnySettings]:
    from synthgrad_lab.clocks import experiments as clocks
    from synthgrad_lab.feedforward.experiments import every_layer, stability
    from synthgrad_lab.feedforward.experiments import paper_table as feedforward
    from synthgrad_lab.recurrent import experiments as recurrent

    match options.what:
        case "feedforward":
            return feedforward.cells(feedforward.BUDGETS[options.budget], options.cifar_dir)
        case "recurrent":
            budget = recurrent.BUDGETS[options.budget]
            todays = [row for row in rows if is_todays(row)]
            return recurrent.cells(budget, options.text, options.tasks, todays)
        case what:
            return {"every-layer": every_layer, "stability": stability, "clocks": clocks}[what].cells()


def _tell_lacking(options: Namespace, file: Path) -> None:
    """Say which runs of an experiment have no record of today's settings and recipe."""
    from synthgrad_lab.running.gather import lacking
    from synthgrad_lab.stages import experiments as stages

    rows = records(file)
    if options.what == "stages":
        found = {row["cell"]: row for row in rows}
        todo = stages.cells()
        todo = {name: cell for name, cell in todo.items() if _asked(name, options.only)}
        missing = [name for name, (s, how) in todo.items() if not stages.recorded_so(found.get(name), s, how)]
    else:
        todo = _cells(options, [])
        if options.what == "recurrent" and rows:
            todo = {**todo, **_cells(options, rows)}
        missing = lacking(todo, file)
    if missing:
        named = ", ".join(missing[:4]) + (", …" if len(missing) > 4 else "")
        note(f"{len(missing)} of {len(todo)} runs have no record of today's settings and recipe: {named}")


def do_sweep(options: Namespace) -> None:
    """Run a figure's runs and draw it."""
    from synthgrad_lab.feedforward.experiments import sparse

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
    from synthgrad_lab.data.sources import cache_folder

    values = {**environment(), "cache": str(cache_folder())}
    if options.json:
        print(to_json(values))
        return
    for key, value in values.items():
        print(f"{key:15} {value}")


def _show(drawn: Table) -> None:
    """Print a table whole: in a narrow terminal, its lines go over the edge rather than lose words."""
    for column in drawn.columns:
        column.overflow = "fold"
    console = Console()
    width = Measurement.get(console, console.options.update(width=10_000), drawn)
    # A file or a pipe has no edge.
    console.width = max(console.width, width.minimum) if console.is_terminal else width.maximum
    console.print(drawn)
