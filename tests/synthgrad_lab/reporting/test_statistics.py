"""Runs repeat one experiment where they differ only in the single run's own settings, whatever family they are of."""

import dataclasses
import typing
from dataclasses import asdict

import pytest

from synthgrad.stages import Policy
from synthgrad_lab.clocks import settings as clocks
from synthgrad_lab.families import FAMILIES
from synthgrad_lab.feedforward import settings as feedforward
from synthgrad_lab.recurrent import settings as recurrent
from synthgrad_lab.reporting.runs import read
from synthgrad_lab.reporting.runs import set_apart as runs_apart
from synthgrad_lab.reporting.statistics import differing, newest, one_experiment, set_apart
from synthgrad_lab.running.record import Record, environment
from synthgrad_lab.running.settings import OWN, built, flat, vary
from synthgrad_lab.stages.settings import Launch
from tests.helpers.written import write

CLASSES = {"feedforward": feedforward.Settings, "recurrent": recurrent.Settings, "clocks": clocks.Settings}
FAMILY = {family.name: family for family in FAMILIES}
NAMES = [(family, name) for family, of in CLASSES.items() for name in flat(of())]


def another(of, name):
    """A value that the setting does not have by default, of its own type."""
    group, _, own = name.rpartition(".")
    cls = type(getattr(of(), group)) if group else of
    hint, value = typing.get_type_hints(cls)[own], flat(of())[name]
    if name == "recipe":
        return next((r for f in FAMILIES if f.settings is of for r in f.recipes if r != value), "another")
    options = [hint, *typing.get_args(hint)]
    literals = [
        each
        for option in options
        for each in typing.get_args(option)
        if typing.get_origin(option) is typing.Literal
    ]
    if literals:
        return next(option for option in literals if option != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, tuple) or name == "mixing.lam_end":
        return (0.25,)
    if int in options or float in options:
        return 3 if value is None else value + 1 if int in options else value / 2 + 0.1
    return "elsewhere"


def changed(values, name, value):
    """Recorded settings with another value of a dotted name."""
    group, dot, own = name.partition(".")
    return values | {group: values[group] | {own: value} if dot else value}


@pytest.mark.parametrize(("family", "name"), NAMES)
def test_every_setting_that_is_not_a_runs_own_sets_runs_apart(family, name):
    of = CLASSES[family]
    one = asdict(of())
    other = changed(one, name, another(of, name))
    assert other != one
    if name == "epochs":  # another word for steps, which are counted
        other["steps"] = built(of, other).steps
    rows = [{"settings": settings} for settings in (one, other)]
    assert bool(len(differing(rows).columns)) == (name not in OWN or name == "epochs")
    texts = set_apart(rows, ["", ""])
    if name in OWN and name != "epochs":
        assert texts == ["", ""]
    else:
        shown = "steps" if name == "epochs" else name
        assert all(f"{shown}=" in text for text in texts)
        assert texts[0] != texts[1]
        with pytest.raises(ValueError, match=f"do not repeat one run .*{shown}"):
            one_experiment(rows)


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(Launch)])
def test_every_setting_of_a_launch_sets_runs_apart_except_its_places(name):
    how = asdict(Launch(on="simulated"))
    values = {"stages": 3, "at": ["h1"], "on": "ray", "address": "a", "hosts": ["b"], "crashes": [3]}
    other = how | {name: values.get(name, how["policy"] | {"queue": 3} if name == "policy" else 3)}
    rows = [{"settings": asdict(feedforward.Settings()), "launch": each} for each in (how, other)]
    assert (not len(differing(rows).columns)) == (name in ("address", "hosts"))


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(Policy)])
def test_every_setting_of_a_policy_sets_runs_apart(name):
    how = asdict(Launch())
    other = how | {"policy": how["policy"] | {name: 77}}
    rows = [{"settings": asdict(feedforward.Settings()), "launch": each} for each in (how, other)]
    assert list(differing(rows).columns) == [f"launch.policy.{name}"]


def test_versions_of_a_recipe_do_not_repeat_each_other():
    settings = asdict(feedforward.Settings())
    assert list(differing([{"settings": settings}, {"settings": settings, "version": 2}]).columns) == ["version"]
    assert not len(differing([{"settings": settings}, {"settings": settings, "version": 1}]).columns)


def test_of_each_experiment_the_newest_version_is_taken():
    def row(seed, version, **changes):
        return {"settings": asdict(feedforward.Settings(seed=seed, **changes)), "version": version}

    rows = [row(0, 1), row(1, 2), row(2, 2), row(0, 1, layers=6)]
    assert newest(rows) == rows[1:]
    assert newest([]) == []


def test_settings_are_shown_where_nothing_else_tells_runs_apart():
    rows = [{"settings": asdict(feedforward.Settings(layers=n))} for n in (3, 4, 4)]
    assert set_apart(rows, [3, 4, 4]) == ["", "", ""]
    assert set_apart(rows, ["", "", ""]) == ["layers=3", "layers=4", "layers=4"]


def test_a_report_keeps_apart_what_differs_in_one_setting(tmp_path):
    changes = {
        "optimizer.lr": 0.5, "p_update": 0.5, "unlock": "complete", "batch": 99, "model.hidden": 7, "augment": True,
    }  # fmt: skip
    folders = [write(tmp_path / "as-it-is", "cdni"), write(tmp_path / "seed", "cdni", seed=1, **{"run.threads": 2})]
    folders += [write(tmp_path / name, "cdni", **{name: value}) for name, value in changes.items()]
    rows = FAMILY["feedforward"].part("report", "section")(read(folders)[0]).rows
    assert sorted(row["seeds"] for row in rows) == [1] * len(changes) + [2]
    assert len({row["settings"] for row in rows}) == len(rows)


def begun(folder, settings, family=None, **more):
    folder.mkdir()
    first = {"family": family or settings.family, "settings": asdict(settings), "environment": environment()}
    Record(folder).write("settings", **first, **more)
    return folder


def lines(family, folders):
    return FAMILY[family].part("report", "section")(read(folders)[0]).lines


def test_recurrent_runs_say_in_what_they_differ(tmp_path):
    s = recurrent.Settings()
    same = [begun(tmp_path / f"a{seed}", dataclasses.replace(s, seed=seed)) for seed in (0, 1)]
    assert all("settings" not in line for line in lines("recurrent", same))
    others = [begun(tmp_path / "b", vary(s, {"optimizer.lr": 0.5})), begun(tmp_path / "c", recurrent.Settings(T=7))]
    found = [line["settings"] for line in lines("recurrent", [*same, *others])]
    assert found == ["optimizer.lr=0.0003", "optimizer.lr=0.0003", "optimizer.lr=0.5", ""]


def test_runs_on_clocks_and_in_stages_say_in_what_they_differ(tmp_path):
    folders = [
        begun(tmp_path / f"{scale}", vary(clocks.Settings(), {"model.scale": scale})) for scale in (1.0, 10.0)
    ]
    assert [line["settings"] for line in lines("clocks", folders)] == ["model.scale=1", "model.scale=10"]
    places = [
        begun(
            tmp_path / f"late{late}", feedforward.Settings(), "stages",
            launch={**asdict(Launch(on="simulated", lateness=late)), "cuts": [1]},
        )
        for late in (0, 2)
    ]  # fmt: skip
    assert [line["settings"] for line in lines("stages", places)] == ["launch.lateness=0", "launch.lateness=2"]
    assert [text for _, text in runs_apart(read(places)[0], lambda run: run.folder)] == ["", ""]
