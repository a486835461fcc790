"""One self-contained HTML page of sections: tables and figures, no script, nothing from the network."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from synthgrad.checkpoint import write_atomically
from synthgrad_lab.reporting.figures import svg
from synthgrad_lab.reporting.tables import LEFT, Lines


@dataclass(frozen=True)
class Block:
    """A piece of a section; the template ``blocks.html`` has a macro for each kind."""

    kind: str
    """heading, note, notes, warning, table, details, or picture."""
    text: str = ""
    """The heading, note, warning, summary or title."""
    lines: Sequence[Any] = ()
    """Rows by column name; items of notes."""
    words: bool = False
    """Whether a table holds words rather than numbers."""
    image: str = ""
    caption: str = ""
    alt: str = ""


@dataclass(frozen=True)
class Section:
    """A family's part of the page, and what the terminal shows of it."""

    title: str
    lines: Lines
    """Its table."""
    blocks: Sequence[Block] = ()
    heading: str = ""
    """A line above the table."""
    caption: str = ""
    """A line below the table, in the terminal."""
    rows: Sequence[dict[str, Any]] = field(default_factory=tuple)
    """Its numbers, for ``--json``; without them the table's texts."""


def picture(title: str, figure: Figure, caption: str, alt: str) -> Block:
    """A figure under its title, with an explanation below and a text that replaces it."""
    image = f"data:image/svg+xml;base64,{base64.b64encode(svg(figure)).decode()}"
    return Block("picture", title, image=image, caption=caption, alt=alt)


def environment(environments: Sequence[dict[str, Any]]) -> Block:
    """What the runs' numbers depend on besides their settings."""
    names = dict.fromkeys(name for each in environments for name in each)
    values = {name: ", ".join(dict.fromkeys(str(each.get(name)) for each in environments)) for name in names}
    return Block("table", lines=[{"what": name, "value": value} for name, value in values.items()], words=True)


def write(out: Path, sections: Sequence[Section], last: Sequence[Block] = ()) -> Path:
    """Write the page to ``out``: the sections, with titles if there are several, then the blocks ``last``."""
    templates = Environment(
        loader=PackageLoader("synthgrad_lab.reporting"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    page = templates.get_template("report.html").render(sections=sections, last=last, left=LEFT)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, page.encode(errors="surrogateescape"))  # a folder's name may not be text
    return out
