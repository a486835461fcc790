"""The report: its numbers by hand, its page, and its errors where there is nothing to report."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from synthgrad_lab.commands.report import written
from synthgrad_lab.feedforward import report
from synthgrad_lab.feedforward.settings import METHODS
from synthgrad_lab.reporting.html_report import Block, Section
from synthgrad_lab.reporting.html_report import write as write_page
from synthgrad_lab.reporting.runs import read
from synthgrad_lab.reporting.tables import terminal
from synthgrad_lab.running.loop import run
from synthgrad_lab.running.record import Record
from tests.helpers.written import write


@pytest.fixture
def record(tmp_path):
    return lambda name, *values, **changes: write(tmp_path / name, *values, **changes)


@pytest.fixture
def folders(record) -> list[Path]:
    return [record(f"{method}{seed}", method, seed) for method in METHODS for seed in (0, 2)]


class Page(HTMLParser):
    """A page's tags, whether they nest, and its text."""

    def __init__(self, path: Path):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""
        self.feed(path.read_text())
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def images(self):
        return [attrs for tag, attrs in self.tags if tag == "img"]


def section(folders, **options) -> Section:
    found = report.section(read(folders)[0], **options)
    assert found is not None
    return found


def page(folders, path: Path) -> Page:
    return Page(write_page(path, [section(folders)]))


def text(shown: Section) -> str:
    """The section in the terminal."""
    console = Console(width=200)
    with console.capture() as caught:
        console.print(terminal(shown.heading, shown.lines, shown.caption))
    return caught.get()


def test_rows_by_hand(folders):
    rows = {row["method"]: row for row in section(folders).rows}
    assert list(rows) == list(METHODS)
    dni = rows["dni"]
    assert (dni["seeds"], dni["layers"], dni["steps"]) == (2, 4, 20)
    assert dni["test_error"] == pytest.approx(3.1)  # of 3.0 and 3.2
    assert dni["test_deviation"] == pytest.approx(0.1 * 2**0.5)
    assert dni["validation_error"] == pytest.approx(3.6)
    assert dni["paper"] == 2.2
    assert dni["updates_per_layer"] == [20, 20, 20, 20]
    assert dni["cost"] == pytest.approx(4.0)  # (0.04 + 0.12) / (0.01 + 0.03)
    assert rows["bprop"]["cost"] == 1.0
    assert not dni["notes"]
    assert json.loads(json.dumps(list(rows.values()))) == list(rows.values())


def test_one_seed_has_no_deviation_and_no_bprop_no_cost(record):
    (row,) = section([record("a", "cdni")]).rows
    assert row["test_deviation"] is None
    assert row["cost"] is None


@pytest.mark.parametrize(
    ("changes", "paper"),
    [
        ({}, 1.9),
        ({"layers": 6}, 1.6),
        ({"layers": 7}, None),
        ({"width": 64}, None),
        ({"data": "fashion-mnist"}, None),
    ],
)
def test_the_papers_number_stands_beside_the_papers_network_only(record, changes, paper):
    assert section([record("a", "cdni", **changes)]).rows[0]["paper"] == paper


def test_groups_by_network_method_and_steps(record):
    found = section(
        [record("a", "cdni"), record("b", "cdni", steps=30), record("c", "bprop", layers=3), record("d", "bprop")]
    )
    assert [(row["layers"], row["method"], row["steps"]) for row in found.rows] == [
        (3, "bprop", 20), (4, "bprop", 20), (4, "cdni", 20), (4, "cdni", 30),
    ]  # fmt: skip
    drawn = text(found)
    assert all(column in drawn for column in ("layers", "steps"))
    assert "width 256" in drawn  # all agree in it: it stands above the table


def test_runs_of_different_settings_are_separate_rows(record, tmp_path):
    folders = [
        record("a", "cdni", 1),
        record("b", "cdni", 2, **{"optimizer.lr": 0.5}),
        record("c", "cdni", 1, **{"run.threads": 2}),
    ]
    found = section(folders)
    one, other = found.rows
    assert (one["settings"], one["seeds"], one["test_error"]) == ("optimizer.lr=0.001", 2, pytest.approx(2.1))
    assert (other["settings"], other["seeds"], other["test_error"]) == ("optimizer.lr=0.5", 1, pytest.approx(2.2))
    assert (one["notes"], other["notes"]) == (["two runs have the same seed: the deviation is too small"], [])
    html = page(folders, tmp_path / "r.html")
    assert "lr=0.5" in html.text
    assert "cDNI (optimizer.lr=0.5): 2.20 %" not in html.text  # it is drawn
    assert "cDNI (optimizer.lr=0.5) 2.20 %" in html.images()[0]["alt"]
    assert "optimizer.lr=0.001" in text(found)


def test_table(folders, record):
    drawn = text(section(folders))
    for words in ("No Bprop", "3.10 ± 0.14", "0 0 0 20", "4.00", "500k it.", "2 seeds"):
        assert words in drawn
    measured = text(section(folders, cost={"Bprop": 1.0, "DNI": 2.5}))
    assert "2.50" in measured
    assert "4.00" not in measured
    assert "2.00" in measured  # cDNI was not measured: the ratio of its runs' times
    half = text(section([record("half", "dni", ends=False)]))
    assert "no run has finished" in half
    assert "unfinished at step 20 of 20" in half
    assert report.section([]) is None


def test_page(folders, tmp_path):
    out, shown = tmp_path / "new" / "report.html", [section(folders)]
    extra = [Block("note", "and a benchmark")]
    assert write_page(out, shown, extra) == out
    html = Page(out)
    assert [attrs["alt"].split()[0] for attrs in html.images()] == ["Validation", "Cosine,", "One"]
    assert all(attrs["src"].startswith("data:image/svg+xml;base64,") for attrs in html.images())
    for words in ("3.10 ± 0.14", "and a benchmark", "forward lock stays", "validation images", str(folders[0])):
        assert words in html.text
    assert "3.60 ± 0.14" in html.text  # on validation images
    assert "Adam's beta1" in html.text  # a setting's meaning
    assert len([tag for tag, _ in html.tags if tag == "details"]) == len(METHODS) + 1
    links = [v for _, attrs in html.tags for k, v in attrs.items() if k in ("src", "href", "action", "data")]
    assert not [link for link in links if not link.startswith("data:")]
    assert not {"script", "link", "iframe"} & {tag for tag, _ in html.tags}
    before = out.read_bytes()
    assert write_page(out, [section(folders)], extra).read_bytes() == before


def test_texts_are_escaped(record, tmp_path):
    folder = record("<i>&", "cdni", data="<script>alert(1)</script>", recipe='"><b>')
    html = page([folder], tmp_path / "r.html")
    assert not {"script", "i", "b"} & {tag for tag, _ in html.tags}
    assert "<script>alert(1)</script>" in html.text


def test_unfinished_runs_and_empty_folders_are_named(record, tmp_path):
    empty, half, alien = tmp_path / "empty", record("half", "dni", ends=False), tmp_path / "alien"
    empty.mkdir()
    alien.mkdir()
    (alien / "record.jsonl").write_text("[1, 2]\n")
    stopped = record("stopped", "dni", 1, ends=False)
    Record(stopped).write("interrupted", step=20)
    with (stopped / "record.jsonl").open("a") as file:
        file.write('{"kind": "resu')  # torn by a crash
    folders = [record("whole", "dni"), half, stopped, empty, alien]
    (found,) = written(folders, tmp_path / "r.html")
    (row,) = found.rows
    assert row["seeds"] == 1
    html = Page(tmp_path / "r.html")
    assert f"{half} (unfinished at step 20 of 20)" in html.text
    assert f"{stopped} (interrupted at step 20 of 20)" in html.text
    assert f"{empty} (no run in it)" in html.text
    assert f"{alien} (no run in it)" in html.text
    only = page([half], tmp_path / "half.html")
    assert "no run has finished yet" in only.text
    assert len(only.images()) == 1  # its curve
    assert section([half]).rows == []


@pytest.mark.parametrize("function", [section, lambda folders: written(folders, Path("never.html"))])
def test_nothing_to_report(tmp_path, function):
    for folders, kind, words in [
        ([], ValueError, "no run folder was given"),
        ([tmp_path], FileNotFoundError, "holds no run"),
        ([tmp_path / "nowhere"], FileNotFoundError, "no such folder"),
    ]:
        with pytest.raises(kind, match=words) as caught:
            function(folders)
        assert "\n" not in str(caught.value)


def test_a_real_run(tiny, tmp_path):
    result = run(tiny("cdni", steps=3, **{"run.eval_every": 1}))
    (row,) = section([tmp_path / "run"]).rows
    assert row["test_error"] == result["test_error"]
    assert row["updates_per_layer"] == [3, 3, 3, 3]
    html = page([tmp_path / "run"], tmp_path / "r.html")
    assert len(html.images()) == 3
    assert "layer 1 is updated after" in html.images()[2]["alt"]
