"""The ranges of numbers among the settings: each number has one, and is refused outside it by name."""

import dataclasses
import math
from typing import Literal

import pytest

from synthgrad_lab.cli import main
from synthgrad_lab.clocks import settings as clocks
from synthgrad_lab.families import FAMILIES
from synthgrad_lab.feedforward import settings as feedforward
from synthgrad_lab.feedforward.training import rows_of
from synthgrad_lab.recurrent import settings as recurrent
from synthgrad_lab.recurrent.tasks import task_of
from synthgrad_lab.running.ranges import Range, check_ranges, ranges_of
from synthgrad_lab.running.settings import vary
from synthgrad_lab.stages.settings import Launch

GREATEST_SEED = 2**63 - 1


def groups(of):
    """A class of settings, and those nested in it."""
    yield of
    for value in vars(of()).values():
        if dataclasses.is_dataclass(value) and type(value).__module__.startswith("synthgrad_lab"):
            yield type(value)


CLASSES = dict.fromkeys(
    [g for of in (feedforward.Settings, recurrent.Settings, clocks.Settings, Launch) for g in groups(of)]
    + [*recurrent.TASKS.values()]
)
NUMBERS = [(of, name, *found) for of in CLASSES for name, found in ranges_of(of).items()]


def test_every_number_among_the_settings_has_a_range():
    assert len(NUMBERS) > 75
    assert all(isinstance(allowed, Range) for *_, allowed in NUMBERS)


OPTIONS = [kind for f in FAMILIES for kinds in (f.experiments, f.benches) for kind in kinds.values()]


@pytest.mark.parametrize("kind", OPTIONS, ids=lambda kind: kind.__name__)
def test_every_number_among_the_options_of_experiments_and_benchmarks_is_checked(kind):
    for name in ranges_of(kind):
        given = getattr(kind(), name)
        with pytest.raises(ValueError, match=rf"^{name}=-1: it must be "):
            kind(**{name: (-1,) if isinstance(given, tuple) else -1})


@pytest.mark.parametrize(("of", "name", "whole", "allowed"), NUMBERS)
def test_a_number_outside_its_range_is_refused_by_name(of, name, whole, allowed):
    low, high = allowed
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
    with pytest.raises(TypeError, match="quite_new is a number without a range"):
        check_ranges(new())
    words = dataclasses.make_dataclass("Words", [("word", Literal["a"], "a")], namespace={"__module__": __name__})
    check_ranges(words())


def unboxed(text):
    """A message of tyro's without the box that is drawn around it."""
    return " ".join(text.replace("│", " ").split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "run mnist-fcn --seed 18446744073709551616",
            "seed=18446744073709551616: it must be from 0 to 9223372036854775807",
        ),
        ("run add --seed=-1", "seed=-1: it must be from 0"),
        ("run clocks --run.threads 100000", "threads=100000: it must be from 1 to 1024"),
        ("launch mnist-fcn --policy.threads 100000", "threads=100000: it must be "),
        ("launch mnist-fcn --stages 0", "stages=0: it must be a number of at least 2"),
        ("launch mnist-fcn --on simulated --drop nan", "drop=nan: it must be from 0"),
        ("launch mnist-fcn --on simulated --faulty 1", "faulty=1 has no fault"),
        ("launch mnist-fcn --on simulated --lateness 1 --faulty 4", "faulty=4: there are stages 0 to 3"),
        ("launch mnist-fcn --down 3", "belong to on=simulated"),
        ("launch mnist-fcn --stages 3 --at h1", "say different things"),
        ("run mnist-fcn --run.eval-every=-3", "eval_every=-3: it must be a number of at least 1"),
        ("run add --optimizer.lr nan", "lr=nan: it must be a number of at least 0"),
    ],
)
def test_the_command_refuses_them_and_writes_nothing(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    assert main(words.split()) in (1, 2)
    out, err = capsys.readouterr()
    assert message in unboxed(err)
    assert (out, list(tmp_path.iterdir())) == ("", [])
    assert len(err.splitlines()) <= 8


@pytest.mark.parametrize(
    "words",
    ["demo --seeds 0", "demo --steps=-1", "demo --workers 0", "bench step --repeats 0", "bench step --widths 0",
     "bench scale --stages 1", "bench faults --faults=-3",
     "bench recurrent --widths 0", "reproduce sparse --steps 0", "reproduce sparse --seeds 0",
     "reproduce clocks --workers 9999"],
)  # fmt: skip
def test_options_that_count_are_refused_by_name(capsys, words):
    assert main(words.split()) == 2
    option, value = words.replace("=", " ").split()[-2:]
    assert f"{option.removeprefix('--')}={value}: it must be " in unboxed(capsys.readouterr().err)


def test_the_greatest_seed_runs():
    s = feedforward.Settings(seed=GREATEST_SEED, batch=4)
    assert len({*rows_of(9, s, 0).tolist(), *rows_of(9, s, 1).tolist()}) == 8
    task_of(recurrent.Settings(seed=GREATEST_SEED)).chunk()


def test_a_seed_is_taken_as_it_is_written(capsys):
    from synthgrad_lab.commands.run import group
    from synthgrad_lab.commands.words import parse

    kind = group().leaves["add"][1](["--seed", "9007199254740993"])
    assert parse(kind, ["--seed", "9007199254740993"], "synthgrad").settings.seed == 2**53 + 1
    assert vary(recurrent.Settings(), {"steps": 10_000}).steps == 10_000
