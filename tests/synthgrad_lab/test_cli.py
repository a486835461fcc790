import json
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = str(Path(sys.executable).with_name("synthgrad"))
SMALL = ["steps=12", "width=16", "batch=32", "eval_every=4"]


def synthgrad(*arguments, cwd=None):
    return subprocess.run([COMMAND, *map(str, arguments)], capture_output=True, text=True, cwd=cwd)


@pytest.mark.parametrize("command", [[], ["list"], ["run"], ["report"], ["demo"], ["bench"], ["env"]])
def test_help_shows_an_example(command):
    done = synthgrad(*command, "--help")
    assert done.returncode == 0
    assert "example: synthgrad" in done.stdout


def test_run_prints_one_json_object_and_nothing_else(tmp_path):
    done = synthgrad("run", "mnist-fcn", "method=cdni", *SMALL, f"out={tmp_path / 'a'}", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    result = json.loads(done.stdout)
    wanted = "recipe method layers steps seed data test_error validation_error updates_per_layer seconds"
    assert set(wanted.split()) | {"seconds_per_step", "quality", "record"} <= set(result)
    again = synthgrad("run", f"resume={tmp_path / 'a'}", "--json")
    assert json.loads(again.stdout)["test_error"] == result["test_error"]
    for words in (["report", tmp_path / "a", "--out", tmp_path / "r.html"], ["report", tmp_path / "a", "--json"]):
        assert synthgrad(*words, cwd=tmp_path).returncode == 0
    assert "<html" in (tmp_path / "r.html").read_text()


def test_runs_go_under_runs_by_default(tmp_path):
    done = synthgrad("run", "mnist-fcn", "method=bprop", *SMALL, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "test error" in done.stdout
    assert len(list((tmp_path / "runs").glob("*mnist-fcn-bprop*/record.jsonl"))) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run"], "which recipe? there are: mnist-fcn"),
        (["run", "mnist-fnc"], "did you mean 'mnist-fcn'"),
        (["run", "mnist-fcn", "metod=dni"], "did you mean 'method'"),
        (["run", "mnist-fcn", "method=cdnni"], "did you mean 'cdni'"),
        (["run", "mnist-fcn", "data=minst"], "did you mean 'mnist'"),
        (["run", "mnist-fcn", "steps"], "one recipe at a time"),
        (["run", "mnist-fcn", "recipe=x"], "the recipe is the first word"),
        (["run", "mnist-fcn", "resume=x"], "leave out everything else"),
        (["run", "resume=nowhere"], "holds no run"),
        (["run", "mnist-fcn", "data_dir=nowhere"], "train-images-idx3-ubyte"),
        (["report"], "there is no run under runs/"),
    ],
)
def test_mistakes_are_answered_in_a_line_or_two(tmp_path, words, message):
    done = synthgrad(*words, cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2
    assert done.stdout == ""
    assert not (tmp_path / "runs").exists()


def test_list_and_env(tmp_path):
    assert "mnist-fcn" in synthgrad("list").stdout
    assert json.loads(synthgrad("list", "--json").stdout)["mnist-fcn"]["layers"] == "4"
    assert json.loads(synthgrad("env", "--json").stdout)["torch"]


def test_demo_runs_reports_and_goes_on(tmp_path):
    words = ["demo", "--steps", 8, "--seeds", 2, "--out", tmp_path / "demo", "--json"]
    first = synthgrad(*words)
    assert first.returncode == 0, first.stderr
    told = json.loads(first.stdout)
    assert {row["method"] for row in told["rows"]} == {"no-bprop", "bprop", "dni", "cdni"}
    assert all(row["seeds"] == 2 for row in told["rows"])
    assert Path(told["report"]).exists()
    records = {path: path.read_bytes() for path in (tmp_path / "demo").glob("*/record.jsonl")}
    assert len(records) == 8
    again = synthgrad(*words)
    assert again.returncode == 0, again.stderr
    assert {path: path.read_bytes() for path in records} == records
