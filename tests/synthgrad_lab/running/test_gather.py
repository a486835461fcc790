"""Gathered records: nothing is lost, even if several processes write; the committed ones are what today's code runs."""

import json
import multiprocessing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from synthgrad_lab.cli import main
from synthgrad_lab.commands.bench import NAMES
from synthgrad_lab.families import FAMILIES
from synthgrad_lab.feedforward import settings as feedforward
from synthgrad_lab.reporting.statistics import decisive
from synthgrad_lab.running import grid
from synthgrad_lab.running.bench import Bench
from synthgrad_lab.running.experiment import Planned
from synthgrad_lab.running.gather import gather, holds, lacking, merge, records
from synthgrad_lab.running.jsonl import lines_to, read_lines
from synthgrad_lab.running.loop import run
from synthgrad_lab.running.versions import recorded_version, split

RESULTS = Path(__file__).parents[3] / "results"
FAMILY = FAMILIES[0]


def named(*names, value=0):
    return [{"run": name, "value": value} for name in names]


def planned(**settings):
    return {name: Planned({"variant": name}, s) for name, s in settings.items()}


def test_records_take_the_place_of_their_namesakes_and_all_others_stay(tmp_path):
    file = tmp_path / "new" / "all.jsonl"
    merge(file, named("a", "b"))
    merge(file, named("c", "a", value=1), first=["c", "a", "not there"])
    assert records(file) == [*named("c", "a", value=1), *named("b")]
    merge(file, [])
    assert len(records(file)) == 3


def test_a_file_with_a_run_twice_is_not_written(tmp_path):
    lines_to(tmp_path / "all.jsonl", named("a", "b", "a"))
    with pytest.raises(ValueError, match="3 records of 2 names"):
        merge(tmp_path / "all.jsonl", named("c"))
    assert len(records(tmp_path / "all.jsonl")) == 3


def _put(file, who):
    for k in range(20):
        merge(file, named(f"{who}-{k}"), [f"{who}-{k}" for k in range(20)])


def test_processes_that_gather_into_one_file_lose_nothing_of_each_others(tmp_path):
    """Each knows only its own runs: how 42 records of delay were lost."""
    file = tmp_path / "all.jsonl"
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=_put, args=(file, who)) for who in ("delay", "copy", "add")]
    for process in both:
        process.start()
    for process in both:
        process.join()
        assert process.exitcode == 0
    assert {row["run"] for row in records(file)} == {
        f"{who}-{k}" for who in ("delay", "copy", "add") for k in range(20)
    }


def test_what_others_have_gathered_meanwhile_stays(tiny, tmp_path, monkeypatch):
    file, todo = tmp_path / "all.jsonl", planned(mine=replace(tiny("bprop", steps=3), out=None))
    lines_to(file, named("early"))

    def beside(asked, folder, workers, keep):
        merge(file, named("theirs"))
        keep("mine", run(replace(asked["mine"], out=str(folder / "mine"))))

    monkeypatch.setattr(grid, "run_grid", beside)
    gather(todo, tmp_path / "runs", file)
    assert [row["run"] for row in records(file)] == ["mine", "early", "theirs"]


def test_records_of_an_older_recipe_are_run_again_and_stay_until_then(tiny, tmp_path, monkeypatch):
    settings = {f"seed{seed}": replace(tiny("bprop", steps=3, seed=seed), out=None) for seed in (0, 1)}
    todo = planned(**settings)
    file = gather(todo, tmp_path / "runs", tmp_path / "all.jsonl", workers=1)
    before = records(file)
    assert [row["version"] for row in before] == [1, 1]
    monkeypatch.setitem(feedforward.Settings.versions, "bprop", 2)
    assert lacking(settings, file) == list(settings)
    with monkeypatch.context() as patched:
        patched.setattr(grid, "run_grid", lambda *arguments: None)  # interrupted at once
        gather(todo, tmp_path / "runs", file)
    assert records(file) == before
    only = {"seed1": settings["seed1"]}

    def here(asked, folder, workers, keep):
        assert asked == only
        keep("seed1", run(replace(asked["seed1"], out=str(tmp_path / "again"))))

    (tmp_path / "runs2").mkdir()
    (tmp_path / "runs2" / "seed1").symlink_to(tmp_path / "again")
    monkeypatch.setattr(grid, "run_grid", here)
    gather(planned(**only), tmp_path / "runs2", file)
    assert [(row["run"], row["version"]) for row in records(file)] == [("seed1", 2), ("seed0", 1)]
    assert [[row["run"] for row in rows] for rows in split(records(file), FAMILY.version_of)] == [
        ["seed1"],
        ["seed0"],
    ]


def test_a_benchs_record_keeps_what_was_not_measured_again(tmp_path, monkeypatch, capsys):
    rows = []

    @dataclass(frozen=True)
    class Step(Bench):
        def measure(self, bar):
            return [dict(row) for row in rows], {}

    monkeypatch.setitem(FAMILY.benches, "step", Step)
    file = tmp_path / "step.jsonl"
    words = ["bench", "step", "--json", "--record", str(file)]
    rows += [{"width": width, "case": case, "ms": 1.0} for width in (256, 1024) for case in ("Bprop", "cDNI")]
    assert main(words) == 0
    rows[:] = [{"width": 256, "case": "cDNI", "ms": 2.0}]
    assert main(words) == 0
    capsys.readouterr()
    assert [row["ms"] for row in read_lines(file)] == [1.0, 2.0, 1.0, 1.0]


@pytest.mark.parametrize("file", sorted(RESULTS.glob("*/bench-*.jsonl")), ids=lambda file: file.stem)
def test_what_a_bench_measures_is_told_apart_in_the_committed_records(file):
    rows = read_lines(file)
    assert len({tuple(row.get(name) for name in NAMES) for row in rows}) == len(rows)


# --- the committed records ---------------------------------------------------------------------------------

MACHINE = ("torch", "python", "platform", "cpu_capability")
FILES = sorted(path for path in RESULTS.glob("*/*.jsonl") if not path.name.startswith("bench-"))
EXPERIMENTS = [(family, kind) for family in FAMILIES for kind in family.experiments.values()]
LACKING = {"sparse": 28, "feedforward": 1}
"""Runs of an experiment that have no record: not yet run."""


def committed(name):
    return {row["run"]: row for row in read_lines(RESULTS / f"{name}.jsonl")}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_committed_record_says_which_code_and_settings_made_it(file):
    family = next(family for family in FAMILIES if family.name == file.parent.name)
    rows = read_lines(file)
    assert len({row["run"] for row in rows}) == len(rows)
    for row in rows:
        assert family.settings_of(row)
        assert recorded_version(row) >= 1
        assert len(row["environment"].get("commit") or row["environment"]["committed_in"]) == 40
        assert row["environment"]["torch"]


@pytest.mark.parametrize(("family", "kind"), EXPERIMENTS, ids=lambda each: getattr(each, "name", ""))
def test_committed_records_have_the_settings_of_todays_experiments(family, kind):
    """Records of an older recipe are left to the pages, which must say so."""
    experiment = kind(text="text") if "text" in {f for f in kind.__dataclass_fields__} else kind()
    planned = {p.name: p for p in experiment.wanted(RESULTS, ())}
    files = experiment.files(RESULTS, ())
    found = [row for file in files for row in records(file)]
    assert found
    todays, _ = split(found, family.version_of)
    assert todays
    wrong = [
        row["run"] for row in todays if row["run"] not in planned or not holds(row, planned[row["run"]].settings)
    ]
    assert wrong == []


@pytest.mark.parametrize("task", ["add", "delay", "copy", "repeat-copy", "char-lm"])
def test_no_recurrent_task_has_lost_its_records(task):
    least = {"add": 106, "delay": 42, "copy": 41, "repeat-copy": 18, "char-lm": 20}
    rows = committed(f"recurrent/{task}").values()
    assert len(rows) >= least[task]
    assert {row["task"] for row in rows} == {task}


def test_equal_settings_and_versions_gave_equal_errors():
    """In whichever file, on whichever day: else the code has changed what the settings mean, and must say so."""
    rows = [
        (name, row)
        for name in ("every-layer", "paper-table", "variants", "stability", "sparse")
        for row in committed(f"feedforward/{name}").values()
    ]
    found = {}
    texts = decisive([row for _, row in rows]).apply(tuple, axis=1)
    for (name, row), text in zip(rows, texts, strict=True):
        found.setdefault((text, row["settings"]["seed"]), []).append((name, row))
    twice = [rows for rows in found.values() if len(rows) > 1]
    assert len(twice) > 15
    for (name, first), *others in twice:
        for elsewhere, row in others:
            places = [[each["environment"].get(key) for key in MACHINE] for each in (first, row)]
            near = {} if places[0] == places[1] else {"rel": 0.1}
            for error in ("test_error", "validation_error"):
                both = f"{first['run']} of {name} and {row['run']} of {elsewhere}"
                assert row[error] == pytest.approx(first[error], **near), both


def test_versions_belong_to_a_family_and_method(monkeypatch):
    versions, family = feedforward.Settings.versions, {family.name: family for family in FAMILIES}
    assert feedforward.Settings(method="local-loss").version == versions["local-loss"] == 2

    def today(name, recipe, method):
        return family[name].version_of({"settings": {"recipe": recipe, "method": method}})

    assert today("recurrent", "copy", "local-loss") == today("clocks", "clocks", "dni") == 1
    assert [today("recurrent", recipe, "dni") for recipe in ("delay", "add")] == [2, 1]
    monkeypatch.setitem(versions, "cdni", 2)
    assert today("feedforward", "mnist-fcn", "cdni") == today("stages", "mnist-fcn", "cdni") == 2
    assert today("recurrent", "copy", "cdni") == 1
    row = {"run": "a", "settings": {"recipe": "mnist-fcn", "method": "cdni"}}
    assert split([row, row | {"version": 2}], FAMILY.version_of) == ([row | {"version": 2}], [row])


def test_a_record_without_paths_is_the_same_anywhere(tiny, tmp_path):
    s = tiny("bprop", steps=3)
    file = gather(planned(one=replace(s, out=None)), tmp_path / "runs", tmp_path / "all.jsonl", workers=1)
    (row,) = records(file)
    assert str(tmp_path) not in json.dumps(row["settings"])
    assert row["variant"] == "one"
    assert row["family"] == "feedforward"
    assert holds(row, s)
