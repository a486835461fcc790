"""The command ``launch``: a record, a result, going on after Ctrl-C, with real processes; and its report."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from synthgrad_lab.cli import main
from synthgrad_lab.feedforward import report
from synthgrad_lab.running.record import Record
from synthgrad_lab.running.settings import BadSetting
from synthgrad_lab.stages.settings import divided

SMALL = ["mnist-fcn", "method=cdni", "width=32", "batch=64", "model_hidden=8"]


def test_words_go_where_they_belong():
    how, words = divided({"stages": "2", "lateness": "3", "on": "simulated", "queue": "4", "layers": "6"})
    assert (how.stages, how.lateness, how.policy.queue) == (2, 3, 4)
    assert words == {"layers": "6"}
    assert set(how.faults(2)) == {0, 1}
    assert how.faults(2)[0].lateness == 3
    with pytest.raises(BadSetting, match="belong to on=simulated"):
        divided({"drop": "0.1"})
    with pytest.raises(BadSetting, match="at least 1"):
        divided({"queue": "0"})


def test_a_simulated_launch_from_the_command(tmp_path, capsys):
    out = tmp_path / "run"
    words = [*SMALL, "steps=20", "stages=3", "on=simulated", "drop=0.3", "faulty=1", f"out={out}"]
    assert main(["launch", "--json", *words]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["stages"], result["on"], len(result["per_stage"])) == (3, "simulated", 3)
    assert 0 < result["test_error"] < 100
    assert main(["launch", *words]) == 1  # the folder holds a run
    assert "resume=" in capsys.readouterr().err
    assert main(["launch", *SMALL, "stages=9"]) == 1
    assert "2 to 4 stages" in capsys.readouterr().err
    assert main(["launch", "add", "stages=2"]) == 2
    assert "no chain of layers" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a shell's signals")
def test_ctrl_c_stops_all_stages_and_resume_goes_on(tmp_path):
    out, environment = tmp_path / "run", {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [*SMALL, "steps=100000", "stages=2", "checkpoint_every=20", f"out={out}"]
    program = [sys.executable, "-m", "synthgrad_lab.cli", "launch"]
    started = subprocess.Popen([*program, *words], env=environment, stderr=subprocess.PIPE, start_new_session=True)
    record = Record(out)
    deadline = time.monotonic() + 600
    while not [line for line in _lines(record, "point") if line["step"] > 20]:
        assert time.monotonic() < deadline
        assert started.poll() is None
        time.sleep(0.2)
    os.killpg(started.pid, signal.SIGINT)  # as a terminal does: the stages get it, too
    _, told = started.communicate(timeout=300)
    assert started.returncode == 130
    assert b"launch resume=" in told
    steps = record.read("interrupted")[0]["steps"]
    assert min(steps) > 20
    assert {path.name for path in (out / "stages").glob("stage-*")} == {"stage-0", "stage-1"}

    _shorten(record, max(steps) + 30)
    done = subprocess.run([*program, "--json", f"resume={out}"], env=environment, capture_output=True, timeout=600)
    assert done.returncode == 0, done.stderr.decode()
    result = json.loads(done.stdout)
    assert result["per_stage"][0]["clock"] == max(steps) + 30
    assert result["per_stage"][0]["steps"] > 30
    trace = json.loads((out / "trace.json").read_text())["traceEvents"]
    assert {e["name"] for e in trace if e["pid"] == 0} >= {"forward", "backward", "update", "send", "fit"}
    page = report.write([out], tmp_path / "report.html").read_text()
    assert "Runs in stages" in page
    assert "Who is at work when" in page
    assert report.rows([out]) == []


def _lines(record: Record, kind: str) -> list[dict]:
    return record.read(kind) if record.path.exists() else []


def _shorten(record: Record, steps: int) -> None:
    """As if the run had been asked for fewer steps, so that it ends within the test."""
    lines = record.path.read_text().splitlines()
    first = json.loads(lines[0])
    first["settings"]["steps"] = steps
    Path(record.path).write_text("\n".join([json.dumps(first), *lines[1:]]) + "\n")


def test_a_simulated_launch_tells_its_result_in_words(tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["launch", *SMALL, "steps=6", "stages=2", "on=simulated", f"out={out}"]) == 0
    said, told = capsys.readouterr()
    assert "division" not in told
    lines = {line[:17].strip(): line[17:].strip() for line in said.splitlines()}
    assert [name for name in lines if name.startswith("stage ")] == ["stage 0", "stage 1"]
    seconds = Record(out).read("result")[0]["seconds"]
    assert seconds > 0
    assert lines["seconds"] == f"{seconds:.1f}, {6 / seconds:.0f} steps/s"
    # As records of before have it, which counted no time.
    text = (out / "record.jsonl").read_text()
    (out / "record.jsonl").write_text(text.replace(f'"seconds": {seconds}', '"seconds": 0.0'))
    assert main(["launch", f"resume={out}"]) == 0
    assert "seconds           0.0\n" in capsys.readouterr().out
