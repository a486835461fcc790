"""The ranges of numbers among the settings: one for each, of every kind of run, refused by name."""

import dataclasses
import math

import pytest

from synthgrad_lab.cli import main
from synthgrad_lab.clocks import settings as clocks
from synthgrad_lab.commands.run import settings_of
from synthgrad_lab.feedforward import settings as config
from synthgrad_lab.feedforward.training import rows_of
from synthgrad_lab.recurrent import settings as recurrent
from synthgrad_lab.recurrent.tasks import task_of
from synthgrad_lab.running.ranges import RANGES, numeric, refuse_outside
from synthgrad_lab.stages.settings import Launch

FAMILIES = (config.Settings, recurrent.Settings, clocks.Settings, Launch)
NUMBERS = [(of, name, whole) for of in FAMILIES for name, whole in numeric(of).items()]


def test_every_number_among_the_settings_has_a_range():
    assert len(NUMBERS) > 75
    for of, name, _ in NUMBERS:
        assert name in RANGES, f"{of.__module__}: {name} has no range"
    assert {name for _, name, _ in NUMBERS} == RANGES.keys()


@pytest.mark.parametrize(("of", "name", "whole"), NUMBERS)
def test_a_number_outside_its_range_is_refused_by_name(of, name, whole):
    low, high = RANGES[name]
    wrong = [math.nan, math.inf, -math.inf, low - 1, -1] + ([high + 1] if high < math.inf else [])
    given = getattr(of(), name)
    for value in wrong + ([low + 0.5] if whole else []):
        if high < math.inf and value == high + 1 == high:
            continue
        with pytest.raises(ValueError, match=rf"^{name}=.*: it must be ") as caught:
            of(**{name: (value,) if isinstance(given, tuple) else value})
        assert "\n" not in str(caught.value)


def test_a_number_without_a_range_is_a_fault_of_the_code():
    new = dataclasses.make_dataclass("New", [("quite_new", int, 3)], namespace={"__module__": __name__})
    with pytest.raises(KeyError, match="quite_new"):
        refuse_outside(new())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "run mnist-fcn seed=18446744073709551616",
            "seed=18446744073709551616: it must be from 0 to 9223372036854775807",
        ),
        ("run add seed=-1", "seed=-1: it must be from 0"),
        ("run clocks threads=100000", "threads=100000: it must be from 1 to 1024"),
        ("launch mnist-fcn threads=100000", "threads=100000: it must be at least 1 and at most 1024"),
        ("launch mnist-fcn stages=0", "stages=0: it must be a number of at least 2"),
        ("launch mnist-fcn on=simulated drop=nan", "drop=nan: it must be from 0"),
        ("launch mnist-fcn on=simulated faulty=1", "faulty=1 has no fault"),
        ("launch mnist-fcn on=simulated lateness=1 faulty=4", "faulty=4: there are stages 0 to 3"),
        ("launch mnist-fcn down=3", "belong to on=simulated"),
        ("launch mnist-fcn stages=3 at=h1", "stages=3 and at=h1 say different things"),
        ("run mnist-fcn eval_every=-3", "eval_every=-3: it must be a number of at least 1"),
        ("run add lr=nan", "lr=nan: it must be a number of at least 0"),
    ],
)
def test_the_command_refuses_them_and_writes_nothing(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    assert main(words.split()) in (1, 2)
    out, told = capsys.readouterr()
    assert message in told
    assert (out, len(told.splitlines()), list(tmp_path.iterdir())) == ("", 1, [])


@pytest.mark.parametrize(
    "words",
    ["demo --seeds 0", "demo --steps -1", "demo --workers 0", "bench step --repeats 0", "bench step --widths 0",
     "bench scale --stages 1", "bench faults --faults -3", "sweep sparse --steps 0", "sweep sparse --seeds 0",
     "reproduce clocks --workers 9999"],
)  # fmt: skip
def test_options_that_count_are_refused_by_name(capsys, words):
    with pytest.raises(SystemExit) as stop:
        main(words.split())
    assert stop.value.code == 2
    option, value = words.split()[-2:]
    assert f"argument {option}: {value} is not a whole number" in capsys.readouterr().err


def test_the_greatest_seed_runs():
    seed = RANGES["seed"][1]
    s = config.Settings(seed=seed, batch=4)
    assert len({*rows_of(9, s, 0).tolist(), *rows_of(9, s, 1).tolist()}) == 8
    task_of(recurrent.Settings(seed=seed)).chunk()


def test_a_seed_is_taken_as_it_is_written():
    assert settings_of("add", {"seed": "9007199254740993"}).seed == 2**53 + 1
    assert settings_of("add", {"updates": "1e4"}).updates == 10_000
