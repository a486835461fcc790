import json
import math

import pytest

from synthgrad.checkpoint import write_atomically
from synthgrad_lab.running.jsonl import to_json
from synthgrad_lab.running.record import Record


def test_lines_come_back_and_a_torn_one_does_not(tmp_path):
    record = Record(tmp_path)
    record.write("settings", seed=3)
    record.write("point", step=10)
    with record.path.open("a") as file:
        file.write('{"kind": "point", "st')
    assert record.read() == [{"kind": "settings", "seed": 3}, {"kind": "point", "step": 10}]
    assert record.read("point") == [{"kind": "point", "step": 10}]


def test_rewinding_drops_what_a_resumed_run_will_write_again(tmp_path):
    record = Record(tmp_path)
    for step in (10, 20, 30):
        record.write("point", step=step)
    with record.path.open("a") as file:
        file.write('{"torn')
    record.rewind(20)
    assert [json.loads(line)["step"] for line in record.path.read_text().splitlines()] == [10, 20]


def test_a_failed_replacement_leaves_the_old_file_and_nothing_else(tmp_path):
    write_atomically(tmp_path / "file", b"old")
    with pytest.raises(TypeError):
        write_atomically(tmp_path / "file", "not bytes")  # pyright: ignore[reportArgumentType]
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("file", b"old")]


def test_what_is_no_number_is_null_in_json():
    value = {"a": [float("nan"), 1.5], "b": {"c": float("-inf")}, "d": (1, None, "NaN")}
    assert to_json(value) == '{"a": [null, 1.5], "b": {"c": null}, "d": [1, null, "NaN"]}'


def test_a_quality_that_is_no_number_comes_back_as_one(tmp_path):
    record = Record(tmp_path)
    record.write("point", step=1, quality={"h1": {"cosine": float("nan"), "norm_ratio": 1.0}})
    assert "NaN" not in record.path.read_text()
    (line,) = record.read()
    assert math.isnan(line["quality"]["h1"]["cosine"])
    assert line["quality"]["h1"]["norm_ratio"] == 1.0
