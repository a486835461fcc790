"""One self-contained HTML page about runs: a table, figures, settings; no script and nothing from the network."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from matplotlib.figure import Figure

from synthgrad.checkpoint import replace
from synthgrad_lab import figures, locks, recurrent_report
from synthgrad_lab.clocks import report as clocks_report
from synthgrad_lab.config import Settings
from synthgrad_lab.kinds import CLOCKS, IMAGES, SEQUENCES
from synthgrad_lab.settings import describe
from synthgrad_lab.summary import Run, groups, read, rows, shown, summarise
from synthgrad_lab.tables import LEFT, Cost, cells, heading, table

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

CSS = """
:root { color-scheme: light }
body { font: 16px/1.5 system-ui, sans-serif; color: #1c1c1c; background: #fff; max-width: 60rem; margin: 0 auto;
  padding: 1rem; overflow-wrap: break-word }
h1 { font-size: 1.6rem; margin: .5rem 0 0 } h2 { font-size: 1.25rem; margin: 2.2rem 0 .4rem }
h3 { font-size: 1.05rem; margin: 1.6rem 0 .2rem }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #ddd; text-align: right; vertical-align: top }
th { border-bottom: 2px solid #888 } td { white-space: nowrap }
.text, .words th, .words td { text-align: left } .words td + td { white-space: normal; overflow-wrap: anywhere }
.wide { overflow-x: auto } figure { margin: .4rem 0 1.5rem }
figure img { width: 100%; min-width: 40rem; height: auto }
figcaption, .note, .notes { font-size: .92rem; color: #444; max-width: 46rem } .notes { padding-left: 1.2rem }
.warn { color: #8a3b00 }
details { margin: .3rem 0 } summary { cursor: pointer } code { overflow-wrap: anywhere }
@media print { body { max-width: none; padding: 0; font-size: 11pt } .wide { overflow: visible }
  figure img { min-width: 0; width: auto; max-width: 100%; max-height: 19cm }
  figure, tr { break-inside: avoid } h2, h3 { break-after: avoid } }
"""


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
    runs = [run for members in groups(run for run in found if run.kind is IMAGES).values() for run in members]
    numbers = summarise(runs)
    networks: dict[tuple[str, int, int], list[Run]] = {}
    for members in groups(runs).values():
        data, layers, width, *_ = members[0].key
        networks.setdefault((data, layers, width), []).extend(members)
    body = [
        "<h1>Decoupled neural interfaces: runs beside each other</h1>",
        _sequences(sequences),
        _two_clocks(two_clocks),
        f'<p class="note">{escape(heading(numbers))}</p>' if runs else "",
        _table(cells(numbers, cost)),
        *(_warning(f"{shown(row['method'])}: {note}.") for row in numbers for note in row["notes"]),
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
        f"<style>{CSS}</style></head><body>\n{chr(10).join(part for part in body if part)}\n</body></html>\n"
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    replace(out, page.encode())
    return out


def _table(lines: Iterable[dict[str, str]], kind: str = "") -> str:
    lines = list(lines)
    if not lines:
        return ""
    style = {name: ' class="text"' if name in LEFT else "" for name in lines[0]}
    head = "".join(f"<th{style[name]}>{escape(name)}</th>" for name in lines[0])
    body = "".join(
        "<tr>" + "".join(f"<td{style[name]}>{escape(text)}</td>" for name, text in line.items()) + "</tr>\n"
        for line in lines
    )
    drawn = f'<table class="{kind}"><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>'
    return f'<div class="wide">{drawn}</div>'


def _notes(cost: Cost) -> str:
    times = (
        ", and was measured with the methods in turn."
        if cost
        else "; it is the runs' own, whatever else the machine did meanwhile."
    )
    return '<ul class="notes"><li>' + "</li>\n<li>".join(NOTES) + f"{times}</li></ul>"


def _warning(text: str) -> str:
    return f'<p class="warn">{escape(text)}</p>'


def _unfinished(runs: Iterable[Run], others: Iterable[Path]) -> str:
    named = [f"{run.folder} ({run.state})" for run in runs if not run.result]
    named += [f"{folder} (no run in it)" for folder in others]
    return _warning(f"Not in the table: {', '.join(named)}.") if named else ""


def _network(network: tuple[str, int, int], runs: list[Run]) -> str:
    parts = ["<h2>" + escape("{}, {} layers, width {}".format(*network)) + "</h2>"]
    first = [members[0] for members in groups(runs).values()]  # for the texts that stand for a picture
    if any(run.points for run in runs):
        last = ", ".join(f"{shown(r.key[3])} {r.points[-1]['validation_error']:.2f} %" for r in first if r.points)
        alt = f"Validation error over steps, a line per method; where the first seed ends: {last}"
        parts.append(_figure("Validation error", figures.curves(runs), CURVES, alt))
    if drawn := figures.quality(runs):
        last = "; ".join(
            f"{shown(r.key[3])} "
            + ", ".join(f"{name} {q['cosine']:.2f}" for name, q in r.result["quality"].items())
            for r in first
            if r.result and r.result["quality"]
        )
        alt = (
            f"Cosine, norm ratio and relative error of each interface over steps; last cosines, first seed: {last}"
        )
        parts.append(_figure("Quality of the synthetic gradients", drawn, QUALITY, alt))
    if drawn := figures.timeline(runs):
        noted = [(shown(r.key[3]), locks.first_update(r.events)) for r in first]
        last = ", ".join(f"{method} {note[0]:.1f} ms" for method, note in noted if note)
        alt = f"One step of each method, a row per layer; layer 1 is updated after (first seed): {last}"
        parts.append(_figure("One step: who waits for whom", drawn, TIMELINE, alt))
    return "\n".join(parts)


def _figure(title: str, figure: Figure, caption: str, alt: str) -> str:
    image = f"data:image/svg+xml;base64,{base64.b64encode(figures.svg(figure)).decode()}"
    return (
        f'<h3>{title}</h3>\n<figure><div class="wide"><img alt="{escape(alt)}" src="{image}"></div>\n'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _sequences(runs: Sequence[Run]) -> str:
    if not runs:
        return ""
    parts = ["<h2>Recurrent runs</h2>", _table(recurrent_report.lines(runs))]
    for recipe, members in recurrent_report.by_task(runs).items():
        figure = recurrent_report.curves(recipe, members)
        alt = f"{recipe}: what each run has reached, over updates; the table above has the ends"
        parts.append(_figure(escape(recipe), figure, recurrent_report.CAPTION, alt))
    return "\n".join(parts)


def _two_clocks(runs: Sequence[Run]) -> str:
    if not runs:
        return ""
    parts = ["<h2>Two networks, two clocks</h2>", _table(clocks_report.lines(runs))]
    figure = clocks_report.curves([run for run in runs if run.points])
    parts.append(_figure("Errors", figure, clocks_report.CURVES, "Both errors over digits; the table has the ends"))
    if figure := clocks_report.schedules(runs):
        alt = "A ticks at every step, B at every T-th; with Bprop both are updated every T² steps, else A every T"
        parts.append(_figure("Schedules", figure, clocks_report.SCHEDULE, alt))
    return "\n".join(parts)


def _settings(runs: Iterable[Run]) -> str:
    means = {key: text for key, _, text in describe(Settings())}
    parts = ["<h2>Settings</h2>"]
    for (data, layers, width, method, steps), members in groups(runs).items():
        lines = [
            {
                "setting": name,
                "value": ", ".join(dict.fromkeys(str(run.settings.get(name)) for run in members)),
                "meaning": means.get(name, ""),
            }
            for name in members[0].settings
            if name != "out"
        ]
        title = escape(f"{shown(method)}: {data}, {layers} layers, width {width}, {steps} steps")
        parts.append(f"<details><summary>{title}</summary>{_table(lines, 'words')}</details>")
    return "\n".join(parts)


def _environment(runs: Sequence[Run]) -> str:
    names = dict.fromkeys(name for run in runs for name in run.environment)
    lines = [
        {"what": name, "value": ", ".join(dict.fromkeys(str(run.environment.get(name)) for run in runs))}
        for name in names
    ]
    return f"<h2>Environment</h2>\n{_table(lines, 'words')}" if lines else ""


def _folders(runs: Iterable[Run], others: Iterable[Path]) -> str:
    lines = [
        {
            "method": shown(run.key[3]),
            "seed": str(run.settings["seed"]),
            "state": run.state,
            "test error %": f"{run.result['test_error']:.2f}" if run.result else "",
            "folder": str(run.folder),
        }
        for run in runs
    ]
    lines += [{**dict.fromkeys(lines[0], ""), "state": "no run", "folder": str(folder)} for folder in others]
    return f"<h2>Runs</h2>\n{_table(lines, 'words')}"
