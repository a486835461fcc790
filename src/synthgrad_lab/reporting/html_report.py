"""Pieces of a page: tables and figures that need no script and nothing from the network."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from html import escape

from matplotlib.figure import Figure

from synthgrad_lab.reporting.figures import svg
from synthgrad_lab.reporting.tables import LEFT

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


def table(lines: Iterable[dict[str, str]], kind: str = "") -> str:
    """A table; empty without lines."""
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


def picture(title: str, figure: Figure, caption: str, alt: str) -> str:
    """A figure under its title, with what it means below."""
    image = f"data:image/svg+xml;base64,{base64.b64encode(svg(figure)).decode()}"
    return (
        f'<h3>{title}</h3>\n<figure><div class="wide"><img alt="{escape(alt)}" src="{image}"></div>\n'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def warning(text: str) -> str:
    """A line that is to be noticed."""
    return f'<p class="warn">{escape(text)}</p>'
