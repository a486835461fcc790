"""One self-contained HTML page about runs: a table, figures, settings; no script and nothing from the network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from synthgrad.checkpoint import write_atomically
from synthgrad_lab.families import CLOCKS, SEQUENCES
from synthgrad_lab.feedforward import figures, locks
from synthgrad_lab.feedforward import report_sections as sections
from synthgrad_lab.feedforward.settings import Settings
from synthgrad_lab.feedforward.summary import groups, rows, shown, summarise
from synthgrad_lab.feedforward.summary_table import Cost, cells, heading, table
from synthgrad_lab.reporting import html_report as html
from synthgrad_lab.reporting.runs import Run, read
from synthgrad_lab.running.settings import describe

__all__ = ["rows", "table", "write"]

CURVES = """Error on the validation images while training goes on; lower is better, and the scale is logarithmic.
A line is the mean over the seeds, its band runs from the best to the worst of them. A dotted line with crosses is
a run that has not finished."""

QUALITY = """How well each gradient model M predicts the true gradient of its message h<sub>k</sub> (the output of
layer k; h<sub>1</sub> is the lowest), on a fixed batch of validation images that it is not trained on. The full
grey line is a perfect prediction, the dashed one what a model gets that always says zero. The lower the
interface, the more of its teaching is itself predicted, and the harder the task."""

TIMELINE = """Full boxes are work, hatched ones a layer's waiting, by the paper's three locks, in one measured
training step. With backprop a layer waits for all layers above to run forwards (update lock) and backwards
(backward lock), and layer 1 is updated last; with an unlocked interface above it, it is updated before the next
layer even runs, so these two locks are gone. The forward lock stays, and here all runs in one process, one box
after another: what is shown is the order, not a gain in speed; fitting the gradient models makes the step
longer."""

NOTES = (
    "The recipes' settings were chosen on validation images. The test images are used once, at the end of a run.",
    "± is the standard deviation (n − 1) over seeds, which differ in the weights and in the order of the data; a "
    "single run has none.",
    "The paper's numbers are for the same network after 500,000 iterations with the paper's own recipe: where to "
    "aim, not what fewer steps must reach.",
    "“No Bprop” trains the top layer only. A step of each method sees one batch and updates each layer that learns "
    "once. Its time leaves evaluation out",
)


def write(folders: Sequence[Path], out: Path, extra_html: str = "", cost: Cost = None) -> Path:
    """Write the page.

    Args:
        folders: run folders; those without a finished run are named, and show the curve that they have.
        out: the page's file, replaced whole; its folder is made if need be.
        extra_html: put below the table as it is; its texts are escaped already.
        cost: seconds per step over Bprop's, by method, where measured better than by the runs themselves.

    Returns:
        The page's file.

    Raises:
        FileNotFoundError: if a folder does not exist, or none of them holds a run.
        ValueError: if no folder is given.
    """
    found, others = read(folders)
    sequences = [run for run in found if run.kind is SEQUENCES]
    two_clocks = [run for run in found if run.kind is CLOCKS]
    staged = [run for run in found if run.launch]
    images = [run for run in found if run.classifies]
    runs = [run for members in groups(images).values() for run in members]
    numbers = summarise(runs)
    networks: dict[tuple[str, int, int], list[Run]] = {}
    for members in groups(runs).values():
        data, layers, width, *_ = members[0].shown
        networks.setdefault((data, layers, width), []).extend(members)
    body = [
        "<h1>Decoupled neural interfaces: runs beside each other</h1>",
        sections.sequences(sequences),
        sections.two_clocks(two_clocks),
        sections.staged(staged),
        f'<p class="note">{escape(heading(numbers))}</p>' if runs else "",
        html.table(cells(numbers, cost)),
        *(
            html.warning(f"{shown(row['method'], row['settings'])}: {note}.")
            for row in numbers
            for note in row["notes"]
        ),
        _unfinished(runs, others),
        _notes(cost) if runs else "",
        extra_html,
        *(_network(network, members) for network, members in networks.items()),
        _settings(runs) if runs else "",
        _environment(found),
        _folders(runs, others) if runs else "",
    ]
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>synthgrad report</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{html.CSS}</style></head><body>\n{chr(10).join(part for part in body if part)}\n</body></html>\n"
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, page.encode(errors="surrogateescape"))  # a folder's name may be no text
    return out


def _notes(cost: Cost) -> str:
    times = (
        ", and was measured with the methods in turn."
        if cost
        else "; it is the runs' own, whatever else the machine did meanwhile."
    )
    return '<ul class="notes"><li>' + "</li>\n<li>".join(NOTES) + f"{times}</li></ul>"


def _unfinished(runs: Iterable[Run], others: Iterable[Path]) -> str:
    named = [f"{run.folder} ({run.state})" for run in runs if not run.result]
    named += [f"{folder} (no run in it)" for folder in others]
    return html.warning(f"Not in the table: {', '.join(named)}.") if named else ""


def _network(network: tuple[str, int, int], runs: list[Run]) -> str:
    parts = ["<h2>" + escape("{}, {} layers, width {}".format(*network)) + "</h2>"]
    # For the texts that stand for a picture.
    first = {shown(method, settings): members[0] for (*_, method, _, settings), members in groups(runs).items()}
    if any(run.points for run in runs):
        last = ", ".join(
            f"{name} {r.points[-1]['validation_error']:.2f} %" for name, r in first.items() if r.points
        )
        alt = f"Validation error over steps, a line per method; where the first seed ends: {last}"
        parts.append(html.picture("Validation error", figures.curves(runs), CURVES, alt))
    if drawn := figures.quality(runs):
        last = "; ".join(
            f"{method} " + ", ".join(f"{name} {q['cosine']:.2f}" for name, q in r.result["quality"].items())
            for method, r in first.items()
            if r.result and r.result["quality"]
        )
        alt = (
            f"Cosine, norm ratio and relative error of each interface over steps; last cosines, first seed: {last}"
        )
        parts.append(html.picture("Quality of the synthetic gradients", drawn, QUALITY, alt))
    if drawn := figures.timeline(runs):
        noted = [(name, locks.first_update(r.events)) for name, r in first.items()]
        last = ", ".join(f"{method} {note[0]:.1f} ms" for method, note in noted if note)
        alt = f"One step of each method, a row per layer; layer 1 is updated after (first seed): {last}"
        parts.append(html.picture("One step: who waits for whom", drawn, TIMELINE, alt))
    return "\n".join(parts)


def _settings(runs: Iterable[Run]) -> str:
    means = {key: text for key, _, text in describe(Settings())}
    parts = ["<h2>Settings</h2>"]
    for (data, layers, width, method, steps, settings), members in groups(runs).items():
        lines = [
            {
                "setting": name,
                "value": ", ".join(dict.fromkeys(str(run.settings.get(name)) for run in members)),
                "meaning": means.get(name, ""),
            }
            for name in members[0].settings
            if name != "out"
        ]
        title = escape(f"{shown(method, settings)}: {data}, {layers} layers, width {width}, {steps} steps")
        parts.append(f"<details><summary>{title}</summary>{html.table(lines, 'words')}</details>")
    return "\n".join(parts)


def _environment(runs: Sequence[Run]) -> str:
    names = dict.fromkeys(name for run in runs for name in run.environment)
    lines = [
        {"what": name, "value": ", ".join(dict.fromkeys(str(run.environment.get(name)) for run in runs))}
        for name in names
    ]
    return f"<h2>Environment</h2>\n{html.table(lines, 'words')}" if lines else ""


def _folders(runs: Iterable[Run], others: Iterable[Path]) -> str:
    lines = [
        {
            "method": shown(run.settings["method"]),
            "seed": str(run.settings["seed"]),
            "state": run.state,
            "test error %": f"{run.result['test_error']:.2f}" if run.result else "",
            "folder": str(run.folder),
        }
        for run in runs
    ]
    lines += [{**dict.fromkeys(lines[0], ""), "state": "no run", "folder": str(folder)} for folder in others]
    return f"<h2>Runs</h2>\n{html.table(lines, 'words')}"
