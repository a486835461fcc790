"""The report: its numbers by hand, its page, and what it says where there is nothing to report."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from synthgrad_lab.feedforward import report
from synthgrad_lab.feedforward.recipes import METHODS
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


def text(table) -> str:
    console = Console(width=200)
    with console.capture() as caught:
        console.print(table)
    return caught.get()


def test_rows_by_hand(folders):
    rows = {row["method"]: row for row in report.rows(folders)}
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
    (row,) = report.rows([record("a", "cdni")])
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
    assert report.rows([record("a", "cdni", **changes)])[0]["paper"] == paper


def test_groups_by_network_method_and_steps(record):
    found = report.rows(
        [record("a", "cdni"), record("b", "cdni", steps=30), record("c", "bprop", layers=3), record("d", "bprop")]
    )
    assert [(row["layers"], row["method"], row["steps"]) for row in found] == [
        (3, "bprop", 20), (4, "bprop", 20), (4, "cdni", 20), (4, "cdni", 30),
    ]  # fmt: skip
    drawn = text(report.table(found))
    assert all(column in drawn for column in ("layers", "steps"))
    assert "width 256" in drawn  # all agree in it: said above the table


def test_runs_that_are_no_repetitions_are_told_apart(record, tmp_path):
    folders = [record("a", "cdni", 1), record("b", "cdni", 2, lr=0.5), record("c", "cdni", 1, threads=2)]
    one, other = report.rows(folders)
    assert (one["settings"], one["seeds"], one["test_error"]) == ("lr=0.001", 2, pytest.approx(2.1))
    assert (other["settings"], other["seeds"], other["test_error"]) == ("lr=0.5", 1, pytest.approx(2.2))
    assert (one["notes"], other["notes"]) == (["a seed came twice: the deviation is too small"], [])
    page = Page(report.write(folders, tmp_path / "r.html"))
    assert "lr=0.5" in page.text
    assert "cDNI (lr=0.5): 2.20 %" not in page.text  # it is drawn
    assert "cDNI (lr=0.5) 2.20 %" in page.images()[0]["alt"]
    assert "lr=0.001" in text(report.table([one, other]))


def test_table(folders):
    drawn = text(report.table(report.rows(folders)))
    for words in ("No Bprop", "3.10 ± 0.14", "0 0 0 20", "4.00", "500k it.", "2 seeds"):
        assert words in drawn
    measured = text(report.table(report.rows(folders), {"Bprop": 1.0, "DNI": 2.5}))
    assert "2.50" in measured
    assert "4.00" not in measured
    assert "2.00" in measured  # cDNI was not measured: its runs' own
    assert "no run has finished" in text(report.table([]))


def test_page(folders, tmp_path):
    out = tmp_path / "new" / "report.html"
    assert report.write(folders, out, "<p>and a benchmark</p>") == out
    page = Page(out)
    assert [attrs["alt"].split()[0] for attrs in page.images()] == ["Validation", "Cosine,", "One"]
    assert all(attrs["src"].startswith("data:image/svg+xml;base64,") for attrs in page.images())
    for words in ("3.10 ± 0.14", "and a benchmark", "forward lock stays", "validation images", str(folders[0])):
        assert words in page.text
    assert len([tag for tag, _ in page.tags if tag == "details"]) == len(METHODS)
    links = [v for _, attrs in page.tags for k, v in attrs.items() if k in ("src", "href", "action", "data")]
    assert not [link for link in links if not link.startswith("data:")]
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags}
    before = out.read_bytes()
    assert report.write(folders, out, "<p>and a benchmark</p>").read_bytes() == before


def test_texts_are_escaped(record, tmp_path):
    folder = record("<i>&", "cdni", data="<script>alert(1)</script>", recipe='"><b>')
    page = report.write([folder], tmp_path / "r.html")
    assert not {"script", "i", "b"} & {tag for tag, _ in Page(page).tags}
    assert "<script>alert(1)</script>" in Page(page).text


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
    (row,) = report.rows(folders)
    assert row["seeds"] == 1
    page = Page(report.write(folders, tmp_path / "r.html"))
    assert f"{half} (unfinished at step 20 of 20)" in page.text
    assert f"{stopped} (interrupted at step 20 of 20)" in page.text
    assert f"{empty} (no run in it)" in page.text
    assert f"{alien} (no run in it)" in page.text
    only = Page(report.write([half], tmp_path / "half.html"))
    assert "no run has finished yet" in only.text
    assert len(only.images()) == 1  # its curve
    assert report.rows([half]) == []


@pytest.mark.parametrize("function", [report.rows, lambda folders: report.write(folders, Path("never.html"))])
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
    (row,) = report.rows([tmp_path / "run"])
    assert row["test_error"] == result["test_error"]
    assert row["updates_per_layer"] == [3, 3, 3, 3]
    page = Page(report.write([tmp_path / "run"], tmp_path / "r.html"))
    assert len(page.images()) == 3
    assert "layer 1 is updated after" in page.images()[2]["alt"]
