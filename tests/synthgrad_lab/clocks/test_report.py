"""The command line with runs on two clocks, and their pictures."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from synthgrad_lab.cli import main
from synthgrad_lab.clocks import report
from synthgrad_lab.reporting.html_report import write
from synthgrad_lab.reporting.runs import read
from synthgrad_lab.running.loop import run


def test_commands_show_and_report(tiny, tmp_path, capsys):
    settings = [tiny(method, name=method) for method in ("bprop", "dni")]
    for s in settings:
        run(s)
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "page.html"), "--json"]) == 0
    ((title, lines),) = json.loads(capsys.readouterr().out)["sections"].items()
    assert title == "Two networks, two clocks"
    assert [line["method"] for line in lines] == ["Bprop", "DNI"]
    assert (tmp_path / "page.html").read_text().count("<img") == 2
    assert main(["show", "clocks", "--T", "2", "--json"]) == 0
    assert "tsu" in json.loads(capsys.readouterr().out.splitlines()[-1])["example"]


def test_pictures_show_every_run(tiny, tmp_path):
    for method in ("bprop", "cut"):
        run(tiny(method, name=method))
    runs, _ = read([tmp_path / "bprop", tmp_path / "cut"])
    assert [len(ax.lines) for ax in report.curves(runs).axes] == [2, 2]
    figure = report.drawn({run.settings["method"]: run.events for run in runs})
    assert [ax.get_title("left") for ax in figure.axes] == ["Bprop", "Cut"]
    assert report.schedules([replace(run, events=[]) for run in runs]) is None
    section = report.section(runs[:1])
    assert section is not None
    page = write(
        tmp_path / "one.html", [section, section]
    ).read_text()  # a title introduces one of several sections
    assert page.count("Two networks, two clocks") == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("run clocks --method dnni", "invalid choice 'dnni' for argument '--method'. Expected one of"),
        ("run clocks --T 0", "T=0: it must be a number of at least 1"),
        ("run clocks --layers 3", "Unrecognized options: --layers"),
    ],
)
def test_mistakes_are_refused(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        code = main(words.split())
    except SystemExit as stop:
        code = stop.code
    assert code in (1, 2)
    assert message in " ".join(capsys.readouterr().err.split())
    assert not Path("runs").exists()
