"""The feed-forward section of a report: a table, figures of each network, the runs' settings and folders."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from synthgrad_lab.feedforward import figures
from synthgrad_lab.feedforward.profiling import first_update
from synthgrad_lab.feedforward.settings import Settings
from synthgrad_lab.feedforward.summary import VALIDATION, Cost, Key, groups, heading, label, lines, summarise
from synthgrad_lab.reporting.html_report import Block, Section, picture
from synthgrad_lab.reporting.runs import Run
from synthgrad_lab.reporting.statistics import grouped
from synthgrad_lab.running.settings import flat

CURVES = """Error on the validation images during training; lower is better, and the scale is logarithmic.
A line is the mean over the seeds, its band runs from the best to the worst of them. A dotted line with crosses is
a run that has not finished."""

QUALITY = """How well each gradient model M predicts the true gradient of its message h<sub>k</sub> (the output of
layer k; h<sub>1</sub> is the lowest), on a fixed batch of validation images that M is not trained on. The full
grey line is a perfect prediction, the dashed one a model whose output is always zero. The targets of a lower
interface are themselves predicted to a larger part, and its task is harder."""

TIMELINE = """One measured training step. Full boxes are work; hatched ones are a layer's waiting, by the paper's
three locks. With backpropagation a layer waits until all layers above have run forwards (update lock) and backwards
(backward lock), and layer 1 is updated last. With an unlocked interface above it, layer 1 is updated before the next
layer even runs, so these two locks are gone. The forward lock stays. Here everything runs in one process, one box
after another: the figure shows the order, and no gain in speed; fitting the gradient models makes the step longer."""

NOTES = (
    "The recipes' settings were chosen on validation images. The test images are used once, at the end of a run.",
    "± is the standard deviation (n − 1) over seeds, which differ in the weights and in the order of the data; a "
    "single run has none.",
    "The paper's numbers are for the same network after 500,000 iterations with the paper's own recipe: a goal, "
    "which fewer steps need not reach.",
    "“No Bprop” trains the top layer only. A step of each method sees one batch and updates each layer that learns "
    "once. Its time does not include evaluation",
)


def section(runs: Sequence[Run], cost: Cost = None) -> Section | None:
    """The section about these runs, finished or not; None if there is none."""
    if not runs:
        return None
    found, rows = groups(runs), summarise(runs)
    whole = lines(rows, cost)
    folders = [_folder(run) for members in found.values() for run in members]
    in_turn = "measured with the methods in turn"
    times = f", and was {in_turn}." if cost else "; other work may have run at the same time."
    warnings = [f"{label(row['method'], row['settings'])}: {note}." for row in rows for note in row["notes"]]
    if unfinished := [f"{run.folder} ({run.state})" for run in runs if not run.result]:
        warnings.append(f"Not in the table: {', '.join(unfinished)}.")
    blocks = [Block("warning", text) for text in warnings]
    blocks.append(Block("notes", lines=[*NOTES[:-1], NOTES[-1] + times]))
    if rows:
        blocks.append(Block("details", "With the errors on the validation images", lines=whole))
    for network, some in grouped(found.items(), lambda group: group[0].network).items():
        blocks += [Block("heading", network), *_pictures(dict(some))]
    blocks += [Block("heading", "Settings"), *(_settings(key, members) for key, members in found.items())]
    blocks += [Block("heading", "Runs"), Block("table", lines=folders, words=True)]
    shown = [{name: text for name, text in line.items() if name != VALIDATION} for line in whole]
    # Before a run has finished, the table shows the states of all.
    caption = f"s/step: {in_turn if cost else 'from the runs, while other work may have run'}" if rows else ""
    return Section("Feed-forward networks", shown or folders, blocks, heading(rows), caption, rows)


def _pictures(found: dict[Key, list[Run]]) -> list[Block]:
    """The figures of one network."""
    runs = [run for members in found.values() for run in members]
    first = {key.name: members[0] for key, members in found.items()}  # for the texts that replace pictures
    blocks = []
    if any(run.points for run in runs):
        ends = {name: run.points[-1]["validation_error"] for name, run in first.items() if run.points}
        last = ", ".join(f"{name} {error:.2f} %" for name, error in ends.items())
        alt = f"Validation error over steps, a line per method; where the first seed ends: {last}"
        blocks.append(picture("Validation error", figures.curves(runs), CURVES, alt))
    if drawn := figures.quality(runs):
        last = "; ".join(
            f"{name} " + ", ".join(f"{h} {q['cosine']:.2f}" for h, q in run.result["quality"].items())
            for name, run in first.items()
            if run.result and run.result["quality"]
        )
        alt = (
            f"Cosine, norm ratio and relative error of each interface over steps; last cosines, first seed: {last}"
        )
        blocks.append(picture("Quality of the synthetic gradients", drawn, QUALITY, alt))
    if drawn := figures.timeline(runs):
        noted = [(name, first_update(run.events)) for name, run in first.items()]  # pyright: ignore
        last = ", ".join(f"{name} {note[0]:.1f} ms" for name, note in noted if note)
        alt = f"One step of each method, a row per layer; layer 1 is updated after (first seed): {last}"
        blocks.append(picture("One step: which layer waits for which", drawn, TIMELINE, alt))
    return blocks


def _settings(key: Key, runs: Sequence[Run]) -> Block:
    """The settings of a group, with their meanings."""
    docs, values = _field_docs(Settings), [flat(run.settings) for run in runs]
    rows = [
        {
            "setting": name,
            "value": ", ".join(dict.fromkeys(str(each.get(name)) for each in values)),
            "meaning": docs.get(name, ""),
        }
        for name in values[0]
        if name != "out"
    ]
    return Block("details", f"{key.name}: {key.network}, {key.steps} steps", lines=rows, words=True)


def _field_docs(settings: type) -> dict[str, str]:
    """The docstring below each field, in one line; those of nested dataclasses by dotted names."""
    found = {}
    for base in reversed(settings.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        (defined,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        for field, below in pairwise(defined.body):  # pyright: ignore[reportAttributeAccessIssue]
            match field, below:
                case ast.AnnAssign(target=ast.Name(name)), ast.Expr(value=ast.Constant(str(text))):
                    found[name] = " ".join(text.split())
    for field in dataclasses.fields(settings):
        group: Any = field.default_factory
        if isinstance(group, type) and dataclasses.is_dataclass(group):
            found |= {f"{field.name}.{name}": text for name, text in _field_docs(group).items()}
    return found


def _folder(run: Run) -> dict[str, str]:
    return {
        "method": label(run.settings["method"]),
        "seed": str(run.settings["seed"]),
        "state": run.state,
        "test error %": f"{run.result['test_error']:.2f}" if run.result else "",
        "folder": str(run.folder),
    }
