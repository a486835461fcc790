"""The command line with recurrent recipes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from synthgrad_lab.cli import main
from synthgrad_lab.recurrent.recipes import RECIPES
from synthgrad_lab.running.loop import run
from synthgrad_lab.running.settings import vary
from synthgrad_lab.running.stops import Interrupted
from tests.helpers.runs import recorded

SMALL = ["--steps", "20", "--width", "4", "--batch", "5", "--run.eval-every", "10"]
KEYS = "recipe method T cell seed steps sequences seconds seconds_per_step cross_entropy floor record quality"


@pytest.fixture
def synthgrad(capsys):
    def call(*words):
        try:
            code = main([str(word) for word in words])
        except SystemExit as stop:
            code = stop.code
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_run_prints_one_json_object_and_nothing_else(tmp_path):
    command = [str(Path(sys.executable).with_name("synthgrad")), "run", "add", "--steps", "20", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    result = json.loads(done.stdout)
    assert set(KEYS.split()) <= set(result)
    assert (result["recipe"], result["method"], result["steps"]) == ("add", "dni", 20)
    assert len(list((tmp_path / "runs").glob("*add-dni-rnn32-T5-seed0/record.jsonl"))) == 1


def test_plain_output_has_a_measure_a_line(synthgrad, tmp_path):
    code, out, _ = synthgrad("run", "add", "--method", "bptt", *SMALL, "--out", tmp_path / "a")
    assert code == 0
    _, again, _ = synthgrad("run", "--resume", tmp_path / "a", "--json")
    result = json.loads(again)
    assert result.pop("quality") == {}
    lines = {line[:32].strip(): line[32:].strip() for line in out.splitlines()}
    assert list(lines) == [key.replace("_", " ") for key in result]
    assert lines["cross entropy"] == f"{result['cross_entropy']:.5g}"
    assert (lines["method"], lines["record"]) == ("bptt", result["record"])


def test_plain_output_shows_the_quality_of_m(synthgrad, tmp_path):
    _, out, _ = synthgrad("run", "add", *SMALL, "--out", tmp_path / "a")
    lines = [line for line in out.splitlines() if line.startswith("quality at ")]
    assert [line[11:].split("  ")[0] for line in lines] == ["state", *(f"boundary {k}" for k in range(1, 6))]
    for measure in ("cosine", "sign agreement", "norm ratio", "relative error"):
        assert all(f"{measure} " in line for line in lines)
    assert "r2 " in lines[0]


def test_a_report_has_a_section_of_recurrent_runs(synthgrad, tmp_path):
    synthgrad("run", "add", *SMALL, "--out", tmp_path / "a")
    words = ("report", tmp_path, "--out", tmp_path / "page.html")
    _, out, _ = synthgrad(*words)
    assert "Recurrent runs" in out
    assert "no run has finished" not in out
    _, out, _ = synthgrad(*words, "--json")
    ((title, [line]),) = json.loads(out)["sections"].items()
    assert (title, line["task"], line["state"]) == ("Recurrent runs", "add", "finished")
    assert -1 <= float(line["true cosine"]) <= 1


def test_show_prints_an_example_of_every_task(synthgrad, tmp_path):
    (tmp_path / "text.txt").write_text("the cat sat on the mat;\n" * 9)
    for recipe in RECIPES:
        text = ("--task.text", tmp_path / "text.txt") if recipe == "char-lm" else ()
        code, out, err = synthgrad("show", recipe, *text)
        assert (code, err) == (0, "")
        assert len(out.splitlines()) >= 2


def test_show_copy_with_two_bits(synthgrad):
    code, out, err = synthgrad("show", "copy", "--task.bits", "2")
    assert (code, err) == (0, "")
    first, *rows = out.splitlines()
    assert first == "N = 3, R = 1, 9 steps"
    values = {row[:9].strip(): row[9:].split() for row in rows if row}
    assert list(values) == ["bit 0", "bit 1", "start", "repeat", "say 0", "say 1", "end"]
    for bit in (0, 1):
        assert values[f"say {bit}"] == [*values[f"bit {bit}"][1:4], "0"]
    assert values["start"] == ["1", *"00000000"]
    assert values["end"] == [*"0001"]
    code, shown, _ = synthgrad("show", "copy", "--task.bits", "2", "--json")
    assert code == 0
    assert json.loads(shown) == {"recipe": "copy", "example": out.removesuffix("\n")}


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("show mnist-fcn", 2, "unknown recipe 'mnist-fcn'"),
        ("show kopy", 2, "unknown recipe 'kopy'; did you mean 'copy'"),
        ("run ad", 2, "unknown recipe 'ad'; did you mean 'add'"),
        ("run add --T 0", 2, "T=0: it must be a number of at least 1"),
        ("run add --method cdni", 1, "method=cdni sees an episode's targets to come: add has no episodes"),
        ("run add --per episode", 2, "add is a stream without end"),
        ("run char-lm", 1, "char-lm needs a text: --task.text FILE"),
        ("run char-lm --task.text nowhere.txt", 1, "text=nowhere.txt: no such file or folder"),
    ],
)
def test_mistakes_are_answered_in_a_line_or_two(synthgrad, tmp_path, monkeypatch, words, code, message):
    monkeypatch.chdir(tmp_path)
    found, out, err = synthgrad(*words.split())
    assert (found, out) == (code, "")
    assert message in err
    assert len(err.strip().splitlines()) <= 2
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("run add --T 2.5", "Error parsing --T: invalid literal for int() with base 10: '2.5'"),
        ("run add --widh 4", "--width"),
        ("run add --method dmi", "invalid choice 'dmi' for argument '--method'"),
        ("run add --recipe copy", "Unrecognized options: --recipe"),
        ("run add --resume x", "Unrecognized options: --resume"),
    ],
)
def test_words_that_are_no_options_or_values_are_refused(synthgrad, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = synthgrad(*words.split())
    assert (code, out) == (2, "")
    assert message in err
    assert not (tmp_path / "runs").exists()


def test_list_names_every_recurrent_recipe(synthgrad):
    code, out, _ = synthgrad("list")
    assert code == 0
    for name, recipe in RECIPES.items():
        assert f"\n  {name:14} {recipe.__doc__}\n" in out
    assert "--T 5" in " ".join(synthgrad("list", "add")[1].split())
    listed = json.loads(synthgrad("list", "--json")[1])
    assert {name: listed[name]["method"] for name in RECIPES} == dict.fromkeys(RECIPES, "dni")
    assert (listed["add"]["T"], listed["seq-mnist"]["T"], listed["mnist-fcn"]["layers"]) == ("5", "7", "4")


def test_an_interrupted_run_is_resumed(synthgrad, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    code, ended, _ = synthgrad("run", "delay", *SMALL, "--out", whole, "--json")
    assert code == 0

    def interrupt(step, measure):
        if step == 11:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        run(vary(recorded(whole), {"out": str(cut)}), interrupt)
    code, again, _ = synthgrad("run", "--resume", cut, "--json")
    assert code == 0
    one, other = json.loads(ended), json.loads(again)
    for key in ("recipe", "steps", "sequences", "longest", "bits", "validation", "parameters"):
        assert one[key] == other[key], key
