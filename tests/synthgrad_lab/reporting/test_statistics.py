"""Runs are repetitions where they differ in nothing but what is a single run's own, of whichever kind they are."""

import dataclasses
import typing
from dataclasses import asdict

import pytest

from synthgrad.stages import Policy
from synthgrad_lab.clocks import report as clocks_report
from synthgrad_lab.clocks import settings as clocks
from synthgrad_lab.families import KINDS
from synthgrad_lab.feedforward import report
from synthgrad_lab.feedforward import settings as config
from synthgrad_lab.recurrent import settings as recurrent
from synthgrad_lab.recurrent.report import lines
from synthgrad_lab.reporting.runs import read, set_apart
from synthgrad_lab.reporting.statistics import apart, newest, one_experiment, told
from synthgrad_lab.running.record import Record, environment
from synthgrad_lab.running.settings import OWN
from synthgrad_lab.stages import report as launching_report
from synthgrad_lab.stages.settings import Launch
from tests.helpers.written import write

FAMILIES = {"images": config.Settings, "sequences": recurrent.Settings, "clocks": clocks.Settings}
FIELDS = [(kind, field.name) for kind, of in FAMILIES.items() for field in dataclasses.fields(of)]


def another(of, name):
    """A value that the setting does not have by default, of its own type."""
    hint, value = typing.get_type_hints(of)[name], getattr(of(), name)
    if name == "recipe":
        return next(recipe for kind in KINDS if kind.settings is of for recipe in kind.recipes if recipe != value)
    options = [hint, *typing.get_args(hint)]
    if typing.get_origin(hint) is typing.Literal:
        return next(option for option in typing.get_args(hint) if option != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, tuple):
        return [0.25]
    if int in options or float in options:
        return 3 if value is None else value + 1 if int in options else value / 2 + 0.1
    return "elsewhere"


@pytest.mark.parametrize(("kind", "name"), [pair for pair in FIELDS if pair != ("clocks", "recipe")])
def test_every_setting_that_is_not_a_runs_own_sets_runs_apart(kind, name):
    of = FAMILIES[kind]
    one = asdict(of())
    other = one | {name: another(of, name)}
    assert other != one
    if name == "epochs":  # a word for steps, which are counted
        other["steps"] = of(**other).steps
    runs = [told({"settings": settings}) for settings in (one, other)]
    assert (runs[0] != runs[1]) == (name not in OWN)
    texts = [text for _, text in apart(list(zip("ab", runs, strict=True)), lambda _: None)]
    if name in OWN:
        assert texts == ["", ""]
    else:
        shown = "steps" if name == "epochs" else name
        assert all(f"{shown}=" in text for text in texts)
        assert texts[0] != texts[1]
        with pytest.raises(ValueError, match=f"are no repetitions of one run .*{shown}"):
            one_experiment([{"settings": one}, {"settings": other}])


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(Launch)])
def test_every_setting_of_a_launch_sets_runs_apart_but_its_places(name):
    how = asdict(Launch(on="simulated"))
    values = {"stages": 3, "at": ["h1"], "on": "ray", "address": "a", "hosts": ["b"], "crashes": [3]}
    changed = how | {name: values.get(name, how["policy"] | {"queue": 3} if name == "policy" else 3)}
    one, other = (told({"settings": asdict(config.Settings()), "launch": each}) for each in (how, changed))
    assert (one == other) == (name in ("address", "hosts"))


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(Policy)])
def test_every_setting_of_a_policy_sets_runs_apart(name):
    how = asdict(Launch())
    changed = how | {"policy": how["policy"] | {name: 77}}
    one, other = (told({"settings": asdict(config.Settings()), "launch": each}) for each in (how, changed))
    assert one != other


def test_versions_of_a_recipe_are_no_repetitions_and_later_settings_had_their_defaults():
    settings = asdict(config.Settings())
    assert told({"settings": settings}) != told({"settings": settings, "recipe_version": 2})
    earlier = {name: value for name, value in settings.items() if name not in ("warmup", "augment", "clip")}
    assert told({"settings": earlier | {"mixing.lam": 0.0}}) == told({"settings": settings})


def test_of_each_experiment_the_newest_version_is_taken():
    def row(seed, version, **changes):
        return {"settings": asdict(config.Settings(seed=seed, **changes)), "recipe_version": version}

    rows = [row(0, 1), row(1, 2), row(2, 2), row(0, 1, layers=6)]
    assert newest(rows) == rows[1:]


def test_a_report_keeps_apart_what_differs_in_one_setting(tmp_path):
    changes = {
        "optimizer.lr": 0.5,
        "p_update": 0.5,
        "unlock": "complete",
        "batch": 99,
        "model.hidden": 7,
        "augment": True,
    }
    folders = [write(tmp_path / "as-it-is", "cdni"), write(tmp_path / "seed", "cdni", seed=1, threads=2)]
    folders += [write(tmp_path / name, "cdni", **{name: value}) for name, value in changes.items()]
    rows = report.rows(folders)
    assert sorted(row["seeds"] for row in rows) == [1] * len(changes) + [2]
    assert len({row["settings"] for row in rows}) == len(rows)


def begun(folder, settings, **more):
    folder.mkdir()
    Record(folder).write("settings", settings=asdict(settings), environment=environment(), **more)
    return folder


def test_recurrent_runs_say_in_what_they_differ(tmp_path):
    s = recurrent.Settings()
    same = [begun(tmp_path / f"a{seed}", dataclasses.replace(s, seed=seed)) for seed in (0, 1)]
    runs, _ = read(same)
    assert all("settings" not in line for line in lines(runs))
    runs, _ = read(
        [
            *same,
            begun(tmp_path / "b", dataclasses.replace(s, lr=0.5)),
            begun(tmp_path / "c", recurrent.Settings(T=7)),
        ]
    )
    assert [line["settings"] for line in lines(runs)] == ["lr=0.0003", "lr=0.0003", "lr=0.5", ""]


def test_runs_on_clocks_and_in_stages_say_in_what_they_differ(tmp_path):
    folders = [begun(tmp_path / f"{scale}", clocks.Settings(scale=scale)) for scale in (1.0, 10.0)]
    assert [line["settings"] for line in clocks_report.lines(read(folders)[0])] == ["scale=1", "scale=10"]
    places = [
        begun(
            tmp_path / f"late{late}",
            config.Settings(),
            launch={**asdict(Launch(on="simulated", lateness=late)), "cuts": [1]},
        )
        for late in (0, 2)
    ]
    found = launching_report.lines(read(places)[0])
    assert [line["settings"] for line in found] == ["lateness=0", "lateness=2"]
    assert [text for _, text in set_apart(read(places)[0], lambda run: run.folder)] == ["", ""]
