import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from synthgrad_lab.running.grid import run_grid
from synthgrad_lab.running.record import Record


def test_finished_cells_are_kept_and_changed_ones_put_aside(tiny, tmp_path):
    cells = {name: tiny(name) for name in ("bprop", "no-bprop")}
    first = run_grid(cells, tmp_path / "cells")
    assert run_grid(cells, tmp_path / "cells") == first
    changed = run_grid({"bprop": replace(cells["bprop"], steps=6)}, tmp_path / "cells")
    assert changed["bprop"]["steps"] == 6
    assert len(list((tmp_path / "cells").glob("bprop.*/record.jsonl"))) == 1


def test_a_diverging_cell_fails_the_call_when_the_others_have_ended(tiny, tmp_path):
    kept = []
    with pytest.raises(ArithmeticError, match="the loss is nan"):
        run_grid(
            {"bad": tiny("bprop", **{"optimizer.lr": 1e38}), "good": tiny("bprop")},
            tmp_path / "cells",
            workers=1,
            keep=lambda name, result: kept.append(name),
        )
    assert kept == ["good"]


COMMAND = str(Path(sys.executable).with_name("synthgrad"))


def two_cells_under_way(words, folder):
    process = subprocess.Popen([COMMAND, *words], start_new_session=True, stderr=subprocess.PIPE, text=True)
    # The curves' files are opened when a run has begun to listen to signals; before, it is importing.
    while len(list(folder.glob("*/tensorboard/*"))) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    return process


def last_kinds(folder):
    return [Record(path.parent).read()[-1]["kind"] for path in folder.glob("*/record.jsonl")]


def test_ctrl_c_stops_all_cells_and_the_same_call_goes_on(tmp_path):
    folder = tmp_path / "demo"
    words = ["demo", "--steps", "600", "--seeds", "1", "--out", str(folder)]
    process = two_cells_under_way(words, folder)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "the same command resumes" in err
    assert "Traceback" not in err
    assert "interrupted" in last_kinds(folder)
    done = subprocess.run([COMMAND, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (folder / "report.html").exists()


def test_cells_whose_parent_is_killed_stop_with_their_checkpoints(tmp_path):
    folder = tmp_path / "demo"
    process = two_cells_under_way(["demo", "--steps", "50000", "--seeds", "1", "--out", str(folder)], folder)
    process.kill()
    process.communicate(timeout=300)  # to the end of the workers' stderr, too
    assert last_kinds(folder) == ["interrupted", "interrupted"]
    assert len(list(folder.glob("*/checkpoint.pt"))) == 2
