"""A run's folder: one owner at a time, and one way to begin again."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from synthgrad import checkpoint
from synthgrad_lab.cli import main
from synthgrad_lab.feedforward import settings as config
from synthgrad_lab.running.grid import run_grid
from synthgrad_lab.running.loop import run
from synthgrad_lab.running.record import Record
from synthgrad_lab.running.run_folder import owned
from synthgrad_lab.running.stops import Interrupted
from synthgrad_lab.stages import training as launched
from synthgrad_lab.stages.settings import Launch
from tests.helpers.runs import recorded, resume

SIMULATED = Launch(on="simulated", stages=2)
PROGRAM = """
import os
import signal
from synthgrad_lab.feedforward.settings import Mixing, Model, Optimizer, Run, Settings
from synthgrad_lab.running.loop import run
"""


def started(code):
    return subprocess.Popen([sys.executable, "-c", PROGRAM + code], stderr=subprocess.PIPE)


def under_way(s):
    """A process that is running it, once its record has begun."""
    process = started(f"run({s!r})")
    while not (Path(s.out) / "record.jsonl").exists() or not Record(Path(s.out)).read("settings"):
        assert process.poll() is None
        time.sleep(0.02)
    return process


def killed(process):
    process.kill()
    process.communicate()


def interrupted(s, at):
    with pytest.raises(Interrupted):
        run(s, lambda step, error: os.kill(os.getpid(), signal.SIGINT) if step == at else None)


def steps_of(s):
    return [line["step"] for line in Record(Path(s.out)).read("point")]


# --- one owner ---------------------------------------------------------------------------------------------


def test_a_folder_has_one_owner_until_that_process_ends_however_it_ends(tiny):
    s = tiny("bprop", steps=100_000, **{"run.eval_every": 50_000, "run.checkpoint_every": 50_000})
    process = under_way(s)
    try:
        before = Record(Path(s.out)).path.read_bytes()
        with pytest.raises(BlockingIOError, match="in use by a run under way"):
            resume(Path(s.out))
        with pytest.raises(FileExistsError, match="--resume "):
            run(s)
        with pytest.raises(BlockingIOError, match="in use by a run under way"):
            run_grid({Path(s.out).name: s}, Path(s.out).parent, workers=1)
        assert Record(Path(s.out)).path.read_bytes() == before
    finally:
        killed(process)
    with owned(Path(s.out)):  # the system gave it back
        pass


def test_a_run_that_has_found_its_folder_free_still_meets_the_other(tiny, monkeypatch):
    """Both look, then both begin: only one of them can."""
    s = tiny("bprop", steps=3)
    with owned(Path(s.out)), pytest.raises(BlockingIOError, match="choose another folder"):
        run(s)
    assert not Record(Path(s.out)).path.exists()
    run(s)


def test_two_resumes_at_once_make_no_double_points(tiny):
    s = tiny("bprop", steps=60, **{"run.eval_every": 5, "run.checkpoint_every": 5})
    interrupted(s, 7)
    seen = []

    def meanwhile(step, error):
        if step == 20:
            with pytest.raises(BlockingIOError):
                resume(Path(s.out))
            seen.append(step)

    resume(Path(s.out), meanwhile)
    assert seen == [20]
    assert steps_of(s) == [*range(5, 61, 5)]


def test_a_launch_owns_its_folder(tiny, tmp_path):
    s = tiny(steps=3)
    with owned(Path(s.out)), pytest.raises(BlockingIOError, match="in use"):
        launched.run(s, SIMULATED)
    launched.run(s, SIMULATED)
    result = Record(Path(s.out)).read("result")
    assert len(result) == 1


# --- one way to begin again --------------------------------------------------------------------------------


def test_a_run_killed_before_its_first_checkpoint_is_gone_on_with(tiny, tmp_path, capsys):
    s = tiny("bprop", steps=30, **{"run.eval_every": 10, "run.checkpoint_every": 1000})
    whole = run(replace(s, out=str(tmp_path / "whole")))
    code = f"run({s!r}, lambda step, error: os.kill(os.getpid(), signal.SIGKILL) if step == 15 else None)"
    process = started(code)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (Path(s.out) / checkpoint.NAME).exists()
    assert steps_of(s) == [10]
    with pytest.raises(FileExistsError, match=rf"synthgrad run --resume {s.out} resumes it"):
        run(s)
    assert main(["run", "--resume", str(s.out), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["test_error"] == whole["test_error"]
    assert steps_of(s) == [10, 20, 30]


@pytest.mark.parametrize("torn", ["", '{"kind": "settings", "settings": {"rec'])
def test_a_run_killed_while_it_wrote_its_first_line_is_no_run(tiny, torn):
    s = tiny("bprop", steps=3)
    Path(s.out).mkdir()
    Record(Path(s.out)).path.write_text(torn)
    with pytest.raises(FileNotFoundError, match="holds no run"):
        resume(Path(s.out))
    run(s)
    assert steps_of(s) == [3]


def test_a_record_that_is_none_of_ours_is_not_overwritten(tiny):
    s = tiny("bprop", steps=3)
    Path(s.out).mkdir()
    Record(Path(s.out)).path.write_text("[1, 2]\n")
    with pytest.raises(FileExistsError, match=r"record.jsonl that is not a run's; choose another --out"):
        run(s)
    assert Record(Path(s.out)).path.read_text() == "[1, 2]\n"


def test_a_broken_checkpoint_says_what_to_do(tiny):
    s = tiny("bprop")
    interrupted(s, 11)
    (Path(s.out) / checkpoint.NAME).write_bytes(b"")
    with pytest.raises(ValueError, match=f"without the file, --resume {s.out} begins at the first step") as caught:
        resume(Path(s.out))
    assert "anew" not in str(caught.value)
    (Path(s.out) / checkpoint.NAME).unlink()
    resume(Path(s.out))
    assert steps_of(s) == [8, 16, 24]


def test_each_command_names_the_other_for_the_others_folder(tiny, tmp_path, capsys):
    staged, plain = tiny(steps=3, name="staged"), tiny("bprop", steps=3, name="plain")
    launched.run(staged, SIMULATED)
    run(plain)
    assert main(["run", "--resume", str(staged.out)]) == 1
    told = capsys.readouterr().err
    assert (
        told
        == f"synthgrad: {staged.out} holds a run in stages: synthgrad launch --resume {staged.out} resumes it\n"
    )
    assert main(["launch", "--resume", str(plain.out)]) == 1
    told = capsys.readouterr().err
    assert (
        told
        == f"synthgrad: {plain.out} holds a run in one process: synthgrad run --resume {plain.out} resumes it\n"
    )
    with pytest.raises(FileExistsError, match=f"synthgrad launch --resume {staged.out} resumes"):
        run(replace(plain, out=staged.out))
    with pytest.raises(FileExistsError, match=f"synthgrad run --resume {plain.out} resumes"):
        launched.run(replace(staged, out=plain.out), SIMULATED)


def test_an_interrupted_simulation_begins_again_with_its_record(tiny):
    s = tiny(steps=6)

    def stop(statuses):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launched.run(s, SIMULATED, stop)
    record = Record(Path(s.out))
    record.write("point", step=3, seconds=1.0, stages=[])
    result = launched.resume(Path(s.out))
    assert [line["kind"] for line in record.read()] == ["settings", "resumed", "result"]
    assert result["seconds"] > 0


# --- what a record says ------------------------------------------------------------------------------------


def test_paths_are_recorded_as_they_are_found_from_anywhere(tiny, tmp_path, monkeypatch):
    from synthgrad_lab.data.sources import cache_folder

    (folder,) = {
        path.parent for path in cache_folder().rglob("train-images-idx3-ubyte*") if "fashion" not in str(path)
    }
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "data").symlink_to(folder)
    monkeypatch.chdir(tmp_path / "here")
    s = tiny("bprop", steps=20, out="a", data_dir="data", **{"run.checkpoint_every": 5})
    interrupted(s, 7)
    monkeypatch.chdir(tmp_path)
    assert recorded(Path("here/a")).data_dir == str(tmp_path / "here" / "data")
    resume(Path("here/a"))
    launched.run(replace(tiny(), steps=2, out="b", data_dir="here/data"), SIMULATED)
    assert Record(Path("b")).read("settings")[0]["settings"]["data_dir"] == str(tmp_path / "here" / "data")


def test_tensorboard_has_the_points_of_the_record_after_a_resume_and_a_kill(tiny):
    s = tiny("bprop", steps=40, **{"run.eval_every": 5, "run.checkpoint_every": 10})
    code = f"run({s!r}, lambda step, error: os.kill(os.getpid(), signal.SIGKILL) if step == 27 else None)"
    started(code).communicate()
    (events,) = (Path(s.out) / "tensorboard").iterdir()
    while int(time.time()) <= int(events.name.split(".")[3]):
        time.sleep(0.05)  # its files are read in the order of the seconds in their names
    resume(Path(s.out))
    board = EventAccumulator(str(Path(s.out) / "tensorboard"))
    board.Reload()
    assert [event.step for event in board.Scalars("validation_error")] == steps_of(s) == [*range(5, 41, 5)]


def test_records_carry_their_commit_and_version(tiny, monkeypatch):
    s = tiny("local-loss", steps=20, **{"run.checkpoint_every": 5})
    interrupted(s, 7)
    (first,) = Record(Path(s.out)).read("settings")
    assert first["version"] == config.Settings.versions["local-loss"] == 2
    assert first["environment"]["torch"]
    monkeypatch.setitem(config.Settings.versions, "local-loss", 3)
    with pytest.raises(ValueError, match="begun with version 2 of its recipe, and the code has version 3"):
        resume(Path(s.out))
    # Whoever runs cells does not take it for today's run, either.
    done = run_grid({"run": replace(s, steps=4)}, Path(s.out).parent, workers=1)
    assert done["run"]["steps"] == 4
    (aside,) = Path(s.out).parent.glob("run.*")
    assert Record(aside).read("settings") == [first]


def test_the_commit_is_the_codes_own(monkeypatch, tmp_path):
    from synthgrad_lab.running import record

    root = Path(record.__file__).parents[3]
    found = record.commit()
    if (root / ".git").exists():
        said = subprocess.run(["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        assert found["commit"] == said.stdout.strip()
        assert isinstance(found["dirty"], bool)
    monkeypatch.setattr(record, "__file__", str(tmp_path / "record.py"))  # installed, outside any repository
    assert record.commit() == {}
    assert "commit" not in record.environment()


def test_cells_are_the_same_wherever_the_working_folder_is(tiny, tmp_path, monkeypatch):
    s = tiny("bprop", steps=3)
    monkeypatch.chdir(tmp_path)
    first = run_grid({"one": s}, Path("cells"), workers=1)
    kept = (tmp_path / "cells" / "one" / "record.jsonl").read_bytes()
    assert run_grid({"one": s}, tmp_path / "cells", workers=1) == first
    assert (tmp_path / "cells" / "one" / "record.jsonl").read_bytes() == kept
    assert asdict(recorded(tmp_path / "cells" / "one"))["out"] == str(tmp_path / "cells" / "one")


def test_a_launch_whose_stages_are_still_at_work_is_not_resumed(tiny):
    """They go on when their supervisor is killed, each in a folder of its own."""
    s = tiny(steps=6)
    folder = Path(s.out)
    folder.mkdir()
    told = {"settings": asdict(s), "launch": {**asdict(Launch(stages=2)), "cuts": [2]}, "environment": {}}
    Record(folder).write("settings", **told)
    before = Record(folder).path.read_bytes()
    with owned(folder / "stages" / "stage-1"), pytest.raises(BlockingIOError, match=r"stage-1 is in use"):
        launched.resume(folder)
    assert Record(folder).path.read_bytes() == before
