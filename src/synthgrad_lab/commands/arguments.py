"""The words that the command ``synthgrad`` understands."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from synthgrad_lab.commands import run as commands
from synthgrad_lab.commands import studies
from synthgrad_lab.commands.bench import BENCHES, do_bench
from synthgrad_lab.commands.launch import do_launch
from synthgrad_lab.families import SEQUENCES

AGAIN = "; what was recorded is kept, and the same command goes on with it"


def parser() -> argparse.ArgumentParser:
    """The parser; options hold ``do``, to be called with them, and what Ctrl-C leaves ``afterwards``."""
    whole = argparse.ArgumentParser(
        prog="synthgrad",
        description="Train the parts of a network without making them wait for each other, beside backprop.",
        epilog="example: synthgrad run mnist-fcn method=cdni steps=3000",
    )
    subparsers = whole.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, do: Any, text: str, example: str, afterwards: str = "") -> argparse.ArgumentParser:
        sub = subparsers.add_parser(name, help=text, description=text, epilog=f"example: {example}")
        sub.set_defaults(do=do, afterwards=afterwards)
        sub.add_argument(
            "--json", action="store_true", help="print one JSON object on standard output, nothing else"
        )
        return sub

    command("list", commands.do_list, "The recipes, their settings and defaults.", "synthgrad list")
    sub = command(
        "run",
        commands.do_run,
        "Run a recipe, or go on with a run.",
        "synthgrad run mnist-fcn method=dni layers=6 seed=1",
    )
    sub.add_argument(
        "words", nargs="*", metavar="RECIPE | key=value", help="see `synthgrad list`; resume=RUN_FOLDER goes on"
    )
    sub = command(
        "launch",
        do_launch,
        "Run an image recipe in stages, a process each (or simulated, or on Ray), or go on with such a run.",
        "synthgrad launch mnist-fcn layers=4 stages=4 method=cdni",
    )
    sub.add_argument(
        "words",
        nargs="*",
        metavar="RECIPE | key=value",
        help="the recipe's settings (`synthgrad list`) and the launch's (--list); resume=RUN_FOLDER goes on",
    )
    sub.add_argument("--list", action="store_true", help="the settings of a launch, and what they are")
    sub = command(
        "show",
        commands.do_show,
        "An example of a recurrent task, or the schedule of clocks.",
        "synthgrad show repeat-copy bits=3",
    )
    sub.add_argument("words", nargs="+", metavar="RECIPE | key=value", help="see `synthgrad list`")
    sub = command(
        "report",
        studies.do_report,
        "A self-contained HTML page about runs.",
        "synthgrad report runs/demo --out report.html",
    )
    sub.add_argument("folders", nargs="*", help="run folders, or folders of them; all under runs/ without any")
    sub.add_argument("--out", type=_file, default="report.html", help="the page (%(default)s)")
    sub = command(
        "demo",
        studies.do_demo,
        "Four methods beside each other on real MNIST, with a table and a report.",
        "synthgrad demo",
        AGAIN,
    )
    sub.add_argument(
        "--out",
        type=_folder,
        default="runs/demo",
        help="folder of its runs; a second call goes on there (%(default)s)",
    )
    sub.add_argument("--steps", type=_count(), default=3000, help="training steps per run (%(default)s)")
    sub.add_argument("--seeds", type=_count(), default=3, help="runs per method (%(default)s)")
    _workers(sub)
    sub.add_argument("--data", choices=["mnist", "fashion-mnist"], default="mnist", help="the images (%(default)s)")
    sub.add_argument("--data-dir", help="a folder with the data's files")
    sub = command(
        "reproduce",
        studies.do_reproduce,
        "Run a table of docs/results.md (what has run already is kept) and write it from the records.",
        "synthgrad reproduce feedforward --budget=quick",
        AGAIN,
    )
    sub.add_argument("what", choices=["every-layer", "feedforward", "stability", "recurrent", "clocks", "stages"])
    sub.add_argument(
        "--budget",
        choices=["quick", "standard", "paper"],
        default="standard",
        help="of feedforward and recurrent: quick is meant for half an hour on two cores, standard is what "
        "docs/results.md reports, paper has the paper's sizes and lengths (%(default)s)",
    )
    sub.add_argument("--text", help="of recurrent: Penn Treebank's folder, or any text; without it no char-lm")
    sub.add_argument("--tasks", nargs="+", choices=[*SEQUENCES.recipes], help="of recurrent: only these")
    sub.add_argument("--only", nargs="+", metavar="WORD", help="only the runs whose name holds one of these words")
    sub.add_argument("--cifar-dir", help="a folder with CIFAR-10's files; without it the cache, or a download")
    sub.add_argument("--out", type=_folder, default="runs", help="folder of the runs (%(default)s)")
    sub.add_argument(
        "--results", type=_folder, default="results", help="folder of the gathered records (%(default)s)"
    )
    sub.add_argument(
        "--pages",
        type=_file,
        nargs="*",
        help=f"to fill ({', '.join(studies.DOCUMENTS)}; outside a clone of the repository none)",
    )
    sub.add_argument("--tables-only", action="store_true", help="run nothing; write the tables from the records")
    _workers(sub)
    sub = command(
        "sweep",
        studies.do_sweep,
        "Many runs over one setting, and their figure: sparse updates, the paper's Fig. 7.",
        "synthgrad sweep sparse --steps 1000 --values 0.05 0.2 1",
        AGAIN,
    )
    sub.add_argument("what", choices=["sparse"])
    sub.add_argument("--values", type=float, nargs="+", help="of p_update (seven from 0.05 to 1)")
    sub.add_argument("--steps", type=_count(), nargs="+", help="lengths of the runs (600 3000)")
    sub.add_argument("--seeds", type=_count(), default=1, help="runs per value (%(default)s)")
    sub.add_argument("--out", type=_folder, default="runs/sparse", help="folder of the runs (%(default)s)")
    sub.add_argument(
        "--record",
        type=_file,
        default="runs/sparse/sparse.jsonl",
        metavar="FILE",
        help="gathered records (%(default)s)",
    )
    sub.add_argument("--draw-only", action="store_true", help="run nothing; draw the figure from the records")
    _workers(sub)
    sub = command(
        "bench",
        do_bench,
        "What decoupling costs in time (step; methods: all image recipes; recurrent) or saves in memory (memory; "
        "clocks); stages beside pipelines (stages), under faults (faults), and many of them (scale).",
        "synthgrad bench stages --emulate",
    )
    sub.add_argument("what", choices=[*BENCHES])
    sub.add_argument("--widths", type=_count(), nargs="+", help="units: of step (256 1024) or recurrent (32 256)")
    sub.add_argument("--repeats", type=_count(), help="rounds over all cases (15; of stages 3)")
    sub.add_argument("--emulate", action="store_true", help="of stages: compute that only takes time")
    sub.add_argument(
        "--stages", type=_count(2), nargs="+", help="how many: of stages --emulate (2 4 8) or scale (2 4 8 16)"
    )
    sub.add_argument("--faults", type=_count(), default=40, help="of faults: how many (%(default)s)")
    sub.add_argument(
        "--unlock", choices=["complete", "update"], default="complete", help="of faults: what waits (%(default)s)"
    )
    sub.add_argument(
        "--record", type=_file, metavar="FILE", help="also write the rows to a .jsonl file, and pictures beside it"
    )
    command(
        "env", studies.do_env, "What a number here depends on: versions, processor, cache.", "synthgrad env --json"
    )
    return whole


def _count(least: int = 1, most: float = math.inf) -> Callable[[str], int]:
    """What an option takes that counts something."""

    def count(text: str) -> int:
        with suppress(ValueError):
            if least <= (found := int(text)) <= most:
                return found
        raise argparse.ArgumentTypeError(f"{text} is not a whole number {wanted}")

    wanted = f"of at least {least}" if most == math.inf else f"from {least} to {most}"
    return count


def _workers(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--workers",
        type=_count(most=1024),
        default=2,
        help="processes at a time, one thread each (%(default)s)",
    )


def _file(word: str) -> str:
    """A file to be written, refused before the work that it is for; a link stands for what it leads to."""
    path = Path(os.path.realpath(word) if os.path.islink(word) else word)
    if path.exists() and not path.is_file():
        raise argparse.ArgumentTypeError(
            f"{word} is a {'folder' if path.is_dir() else 'device'}; wanted a file's name"
        )
    _writable(path)
    return str(path)


def _folder(word: str) -> str:
    """A folder to be written into, refused before the work that it is for."""
    path = Path(word)
    if path.exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f"{word} is a file; wanted a folder's name")
    _writable(path / "file")
    return word


def _writable(path: Path) -> None:
    above = next(place for place in path.absolute().parents if place.exists())
    if not above.is_dir():
        raise argparse.ArgumentTypeError(f"{path}: {above} is a file, not a folder")
    if not os.access(above, os.W_OK | os.X_OK):
        raise argparse.ArgumentTypeError(f"{path}: the folder {above} cannot be written; choose another place")
