"""The command ``launch`` with real processes: its record, its result, its resumption after Ctrl-C, its report."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from synthgrad_lab.cli import main
from synthgrad_lab.reporting import html_report
from synthgrad_lab.reporting.runs import read
from synthgrad_lab.running.record import Record
from synthgrad_lab.stages import report

SMALL = ["mnist-fcn", "--method", "cdni", "--width", "32", "--batch", "64", "--model.hidden", "8"]


def test_a_simulated_launch_from_the_command(tmp_path, capsys):
    out = tmp_path / "run"
    faults = ["--on", "simulated", "--drop", "0.3", "--faulty", "1"]
    words = [*SMALL, "--steps", "20", "--layers", "5", "--stages", "3", *faults, "--out", str(out)]
    assert main(["launch", *words, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["stages"], result["on"], len(result["per_stage"])) == (3, "simulated", 3)
    assert result["layers"] == 5
    assert 0 < result["test_error"] < 100
    assert main(["launch", *words]) == 1  # the folder holds a run
    assert "--resume" in capsys.readouterr().err
    assert main(["launch", *SMALL, "--stages", "9"]) == 1
    assert "2 to 4 stages" in capsys.readouterr().err
    assert main(["launch", "add", "--stages", "2"]) == 2  # no chain of layers
    assert "mnist-fcn" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a shell's signals")
def test_ctrl_c_stops_all_stages_and_resume_ends_the_run(tmp_path):
    out, environment = tmp_path / "run", {**os.environ, "OMP_NUM_THREADS": "1"}
    length = ["--steps", "100000", "--policy.checkpoint-every", "20"]
    words = [*SMALL, *length, "--stages", "2", "--out", str(out)]
    program = [sys.executable, "-m", "synthgrad_lab.cli", "launch"]
    started = subprocess.Popen([*program, *words], env=environment, stderr=subprocess.PIPE, start_new_session=True)
    record = Record(out)
    deadline = time.monotonic() + 600
    while not [line for line in _lines(record, "point") if line["step"] > 20]:
        assert time.monotonic() < deadline
        assert started.poll() is None
        time.sleep(0.2)
    os.killpg(started.pid, signal.SIGINT)  # like a terminal, which sends it to the stages, too
    _, errors = started.communicate(timeout=300)
    assert started.returncode == 130
    assert b"launch --resume" in errors
    steps = record.read("interrupted")[0]["steps"]
    assert min(steps) > 20
    assert {path.name for path in (out / "stages").glob("stage-*")} == {"stage-0", "stage-1"}

    _shorten(record, max(steps) + 30)
    done = subprocess.run(
        [*program, "--json", "--resume", str(out)], env=environment, capture_output=True, timeout=600
    )
    assert done.returncode == 0, done.stderr.decode()
    result = json.loads(done.stdout)
    assert result["per_stage"][0]["clock"] == max(steps) + 30
    assert result["per_stage"][0]["steps"] > 30
    trace = json.loads((out / "trace.json").read_text())["traceEvents"]
    assert {e["name"] for e in trace if e["pid"] == 0} >= {"forward", "backward", "update", "send", "fit"}
    runs, _ = read([out])
    assert [run.family for run in runs] == ["stages"]  # feed-forward runs have another section
    section = report.section(runs)
    assert section.title == "Runs in stages"
    assert "Who is at work when" in html_report.write(tmp_path / "report.html", [section]).read_text()


def _lines(record: Record, kind: str) -> list[dict]:
    return record.read(kind) if record.path.exists() else []


def _shorten(record: Record, steps: int) -> None:
    """Change the record's number of steps, so that the run ends within the test."""
    lines = record.path.read_text().splitlines()
    first = json.loads(lines[0])
    first["settings"]["steps"] = steps
    Path(record.path).write_text("\n".join([json.dumps(first), *lines[1:]]) + "\n")


def test_a_simulated_launch_prints_its_result_in_words(tmp_path, capsys):
    out = tmp_path / "run"
    words = [*SMALL, "--steps", "6", "--stages", "2", "--on", "simulated", "--out", str(out)]
    assert main(["launch", *words]) == 0
    printed, errors = capsys.readouterr()
    assert "division" not in errors
    lines = {line[:17].strip(): line[17:].strip() for line in printed.splitlines()}
    assert [name for name in lines if name.startswith("stage ")] == ["stage 0", "stage 1"]
    seconds = Record(out).read("result")[0]["seconds"]
    assert seconds > 0
    assert lines["seconds"] == f"{seconds:.1f}, {6 / seconds:.0f} steps/s"
    # Older records of simulations have no time.
    text = (out / "record.jsonl").read_text()
    (out / "record.jsonl").write_text(text.replace(f'"seconds": {seconds}', '"seconds": 0.0'))
    assert main(["launch", "--resume", str(out)]) == 0
    assert "seconds           0.0\n" in capsys.readouterr().out
