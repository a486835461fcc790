import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from synthgrad import checkpoint
from synthgrad_lab.feedforward.training import rows_of
from synthgrad_lab.running.loop import run
from synthgrad_lab.running.record import Record
from synthgrad_lab.running.settings import vary
from synthgrad_lab.running.stops import Diverged, Interrupted
from tests.helpers.runs import recorded, resume

TIMES = {"seconds", "seconds_per_step", "record"}


def told(folder):
    """All that a run recorded and learnt, but for times."""
    record = Record(Path(folder))
    lines = [
        {k: v for k, v in line.items() if k not in TIMES}
        for line in record.read()
        if line["kind"] in ("point", "result")
    ]
    return lines, checkpoint.load(Path(folder))["trainer"]


def assert_same(a, b):
    (lines_a, state_a), (lines_b, state_b) = told(a), told(b)
    assert lines_a == lines_b
    for x, y in zip([*state_a["parts"], state_a["method"]], [*state_b["parts"], state_b["method"]], strict=True):
        assert all(torch.equal(x[k], y[k]) for k in x if isinstance(x[k], torch.Tensor))


def test_result_and_record(tiny):
    result = run(tiny())
    assert result["updates_per_layer"] == [24] * 4
    assert set(result["quality"]) == {"h1", "h2", "h3"}
    assert 0 < result["test_error"] < 100
    record = Record(Path(result["record"]).parent)
    assert [line["kind"] for line in record.read()] == ["settings", *["point"] * 3, "timeline", "result"]
    assert record.read("result")[0] == {"kind": "result", **result}
    assert list((record.folder / "tensorboard").glob("events*"))
    assert recorded(record.folder) == tiny()


@pytest.mark.parametrize("method", ["bprop", "local-loss", "dni", "cdni"])
def test_an_interrupted_run_ends_bit_for_bit_like_an_uninterrupted_one(tiny, method):
    whole, cut = tiny(method, "whole"), tiny(method, "cut")
    handler = signal.getsignal(signal.SIGINT)  # in a shell's background job it is ignored
    run(whole)

    def interrupt(step, error):
        if step == 13:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match=r"stopped at step 1[34] of 24; resume with --resume "):
        run(cut, interrupt)
    assert Record(Path(cut.out)).read()[-1]["kind"] == "interrupted"
    torch.rand(17)  # a resumed run depends on nothing that happened meanwhile
    resume(Path(cut.out))
    assert_same(whole.out, cut.out)
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_killed_run_goes_on_from_its_last_checkpoint(tiny, tmp_path):
    whole = vary(tiny("cdni", "whole"), {"steps": 400, "run.eval_every": 50, "run.checkpoint_every": 50})
    killed = replace(whole, out=str(tmp_path / "killed"))
    run(whole)
    code = "from synthgrad_lab.feedforward.settings import Mixing, Model, Optimizer, Run, Settings\n"
    code += "from synthgrad_lab.running.loop import run\n"
    code += f"run({killed!r})"
    process = subprocess.Popen([sys.executable, "-c", code])
    while not (Path(killed.out) / checkpoint.NAME).exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    with Record(Path(killed.out)).path.open("a") as file:
        file.write('{"kind": "point", "ste')  # torn in the middle of a write
    resume(Path(killed.out))
    assert_same(whole.out, killed.out)


def test_a_finished_run_is_not_run_again(tiny):
    result = run(tiny())
    before = Path(result["record"]).read_text()
    assert resume(Path(tiny().out))["test_error"] == result["test_error"]
    assert Path(result["record"]).read_text() == before


def test_a_folder_with_a_run_is_not_overwritten(tiny):
    run(tiny())
    with pytest.raises(FileExistsError, match="--resume "):
        run(tiny(seed=1))


def test_nothing_to_resume(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no run"):
        resume(tmp_path)


def test_nan_ends_a_run_with_its_record(tiny):
    with pytest.raises(Diverged, match="the loss is nan at step"):
        run(tiny("bprop", **{"optimizer.lr": 1e38}))
    last = Record(Path(tiny().out)).read()[-1]
    assert (last["kind"], last["loss"]) == ("diverged", "nan")


def test_a_full_disk_loses_nothing_already_recorded(tiny):
    code = (
        "import resource, sys\nfrom synthgrad_lab.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n"
        f"sys.exit(main('run mnist-fcn --method cdni --steps 40 --run.eval-every 1 --out {tiny().out}'.split()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    lines = Record(Path(tiny().out)).read()
    assert lines[0]["kind"] == "settings"
    assert len(lines) >= 2


@pytest.mark.parametrize("start", [0, 3, 4, 7])
def test_the_order_of_the_data_depends_on_seed_and_step_alone(tiny, start):
    s = tiny(batch=3)
    rows = [rows_of(11, s, done) for done in range(12)]
    assert all(torch.equal(row, rows_of(11, s, done)) for done, row in list(enumerate(rows))[start:])
    for epoch in range(4):
        assert len(set(torch.cat(rows[3 * epoch : 3 * epoch + 3]).tolist())) == 9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 60_000}, "there are 55000 training images"),
        ({"batch": 1}, "batch=1"),
        ({"steps": 0}, "steps=0"),
        ({"layers": 1}, "layers=1"),
        ({"optimizer.lr": -1.0}, "lr=-1"),
        ({"optimizer.lr": float("nan")}, "lr=nan"),
        ({"mixing.lam": (1.5,)}, "lam=1.5"),
        ({"mixing.lam": (0.5,)}, "unlock=fused"),
        ({"run.device": "tpu9"}, "device=tpu9"),
        ({"run.device": "cuda:7"}, "device=cuda:7"),
    ],
)
def test_impossible_settings_are_refused_before_anything_is_written(tiny, changes, message):
    with pytest.raises(ValueError, match=message):
        run(tiny(**changes))
    assert not Path(tiny().out).exists()


def test_records_are_plain_json(tiny):
    run(tiny("bprop"))
    for line in Record(Path(tiny().out)).path.read_text().splitlines():
        json.loads(line, parse_constant=lambda text: pytest.fail(f"{text} is not JSON"))
