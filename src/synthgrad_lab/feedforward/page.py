"""The page of one budget: every error beside the paper's, from the gathered records."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from synthgrad_lab.feedforward.settings import Settings
from synthgrad_lab.feedforward.tables import TABLES
from synthgrad_lab.reporting import documents
from synthgrad_lab.running.gather import records

TITLE = """# Feed-forward networks, every layer decoupled (budget: {budget})

Test error in percent, ± standard deviation over seeds; in brackets the paper's, after 500,000 steps of batch 256
at its own widths. Each row: equal epochs and updates for all methods. Images: {images}.
"""
PARTS = {
    "feedforward": "",
    "baselines": """Baselines: local loss (a classifier per layer), stale gradients (of earlier batches) and direct
feedback alignment.

""",
    "variants": "Depth, sparse updates (p_update), complete unlock, long runs, precision:\n\n",
    "costs": """## Costs

Medians over seeds, on the deepest net. Seconds per step are the runs' own, and include what other processes cost
them; `synthgrad bench methods` measures the methods in turn.

""",
}
"""The tables and the texts above them; a table without records is left out."""


def write(budget: str, path: Path, results: Path) -> Path:
    """Write the page.

    Args:
        budget: the budget's name.
        path: the page's file.
        results: the folder of gathered records.
    """
    tables = {
        name: replace(TABLES[name], today=lambda row: Settings.version_for(row["settings"])) for name in PARTS
    }
    rows = {name: records(results / f"{table.records}.jsonl") for name, table in tables.items()}
    images = dict.fromkeys(row["images"] for row in rows["feedforward"])
    text = TITLE.format(budget=budget, images=", ".join(images))
    for name, introduction in PARTS.items():
        if tables[name].make(rows[name]):
            text += f"\n{introduction}<!-- table: {name} older -->\n<!-- end -->\n"
    return documents.write(path, text, tables, results)
