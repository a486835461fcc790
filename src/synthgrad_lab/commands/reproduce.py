"""The command ``reproduce``: run an experiment, and write its tables from the records."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from synthgrad_lab.commands.demo import AGAIN
from synthgrad_lab.commands.words import Command, Group, Json, group_of, to_write
from synthgrad_lab.families import FAMILIES
from synthgrad_lab.running.family import Family
from synthgrad_lab.running.ranges import Threads

log = logging.getLogger(__name__)
DOCUMENTS = ("README.md", "docs/scale.md", *(f"docs/results/{family.name}.md" for family in FAMILIES))
"""Documents with tables, in a clone of the repository."""


@dataclass(frozen=True)
class Reproduce(Command):
    """Run an experiment (finished runs are kept), gather its records, write the documents' tables from them."""

    only: tuple[str, ...] = ()
    """Only the runs whose name holds one of these words."""
    out: str = "runs"
    """Folder of the runs."""
    results: str = "results"
    """Folder of the gathered records."""
    pages: tuple[str, ...] | None = None
    """Documents to fill; without it those of the repository, in a clone of it."""
    tables_only: bool = False
    """Run nothing; write the tables from the records."""
    workers: Threads = 2
    """Processes at a time, one thread each."""
    json: Json = False

    afterwards = AGAIN

    def __call__(self) -> None:
        """Run, gather, write."""
        from synthgrad_lab.reporting.documents import fill, filled, markdown
        from synthgrad_lab.running.gather import records
        from synthgrad_lab.running.jsonl import to_json
        from synthgrad_lab.running.versions import counted, split

        experiment: Any = getattr(self, "experiment")  # noqa: B009, the field of `with_options`
        family = family_of_experiment(experiment.name)
        out, results = to_write("out", self.out, folder=True), to_write("results", self.results, folder=True)
        kept = results if experiment.documented else out / experiment.place
        pages = documents(self.pages) if experiment.documented else []
        files = experiment.files(kept, self.only)
        known = tables()
        mine = {name: t for name, t in known.items() if results / f"{t.records}.jsonl" in files}
        for page in pages:  # before long runs, check the tables that do not depend on them
            filled(page.read_text("utf-8"), known, results, without={t.records for t in mine.values()})
        if self.tables_only:
            if missing := experiment.lacking(kept, self.only):
                named = ", ".join(missing[:4]) + (", …" if len(missing) > 4 else "")
                log.warning("%d runs have no record of today's settings and recipe: %s", len(missing), named)
        else:
            files = experiment.gather(out, kept, self.workers, self.only)
        for file in files:
            if older := split(records(file), family.version_of)[1]:
                log.info(
                    "%d records in %s are of an older version: %s",
                    len(older),
                    file,
                    counted(older, family.version_of),
                )
        for page in pages:
            fill(page, known, results)
        if not pages and not self.json:
            for table in family.tables.values():
                if kept / f"{table.records}.jsonl" in files and (rows := records(kept / f"{table.records}.jsonl")):
                    print(markdown(table.make(rows)))
        written = [str(path) for path in [*pages, *experiment.finish(out / experiment.place, kept)]]
        if self.json:
            print(to_json({"results": [str(file) for file in files], "pages": written}))
        else:
            print("written: " + " ".join([*map(str, files), *written]))


def documents(asked: Sequence[str] | None) -> list[Path]:
    """The documents to fill: those asked for, or the repository's; none outside a clone.

    Raises:
        BadUsage: if one that is asked for cannot be written.
        FileNotFoundError: if one that is asked for does not exist.
    """
    if asked is None:
        pages = [Path(name) for name in DOCUMENTS]
        if all(path.is_file() for path in pages):
            return pages
        log.info("no document is updated: this folder is no clone of the repository (--pages names others)")
        return []
    found = [to_write("pages", name) for name in asked]
    if missing := [str(path) for path in found if not path.is_file()]:
        raise FileNotFoundError(f"--pages: there is no {', '.join(missing)}; nothing was run")
    return found


def tables() -> dict[str, Any]:
    """All tables of documents, by name, each with its family's checks of records."""
    found = {}
    for family in FAMILIES:
        for name, table in family.tables.items():
            bench = table.records.rpartition("/")[2].startswith("bench-")
            found[name] = table if bench else replace(table, check=family.settings_of, today=family.version_of)
    return found


def family_of_experiment(name: str) -> Family:
    """The family that has an experiment."""
    return next(family for family in FAMILIES if name in family.experiments)


def group() -> Group:
    """All experiments."""
    text = "Run an experiment, and write its tables from the records.\n\nExample: synthgrad reproduce clocks"
    kinds = {name: kind for family in FAMILIES for name, kind in family.experiments.items()}
    return group_of(Reproduce, "experiment", kinds, text)
