"""Gathered records: nothing is lost, whoever else writes; the committed ones are what today's code would run."""

import json
import multiprocessing
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from synthgrad_lab.cli import main
from synthgrad_lab.clocks import experiments as clocks
from synthgrad_lab.commands import bench as bench
from synthgrad_lab.feedforward import settings as config
from synthgrad_lab.feedforward.experiments import every_layer, sparse, stability
from synthgrad_lab.feedforward.experiments import paper_table as feedforward
from synthgrad_lab.recurrent import experiments as recurrent
from synthgrad_lab.reporting.statistics import newest, told
from synthgrad_lab.running import gather as gathering
from synthgrad_lab.running.gather import gather, holds, lacking
from synthgrad_lab.running.gathered import merge, records
from synthgrad_lab.running.jsonl import lines_to, read_lines
from synthgrad_lab.running.loop import run
from synthgrad_lab.running.versions import is_todays, version_of
from synthgrad_lab.stages import experiments as stages

RESULTS = Path(__file__).parents[3] / "results"
STANDARD = recurrent.BUDGETS["standard"]


def named(*names, value=0):
    return [{"cell": name, "value": value} for name in names]


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
    assert {row["cell"] for row in records(file)} == {
        f"{who}-{k}" for who in ("delay", "copy", "add") for k in range(20)
    }


def test_what_others_have_gathered_meanwhile_stays(tiny, tmp_path, monkeypatch):
    file, cells = tmp_path / "all.jsonl", {"mine": replace(tiny("bprop", steps=3), out=None)}
    lines_to(file, named("early"))

    def beside(todo, folder, workers, keep):
        merge(file, named("theirs"))
        keep("mine", run(replace(todo["mine"], out=str(folder / "mine"))))

    monkeypatch.setattr(gathering, "run_cells", beside)
    gather(cells, tmp_path / "runs", file)
    assert [row["cell"] for row in records(file)] == ["mine", "early", "theirs"]


def test_records_of_an_older_recipe_are_run_again_and_stay_until_then(tiny, tmp_path, monkeypatch):
    cells = {f"seed{seed}": replace(tiny("bprop", steps=3, seed=seed), out=None) for seed in (0, 1)}
    file = gather(cells, tmp_path / "runs", tmp_path / "all.jsonl", workers=1)
    before = records(file)
    assert [row["recipe_version"] for row in before] == [1, 1]
    monkeypatch.setitem(config.VERSIONS, "bprop", 2)
    assert lacking(cells, file) == list(cells)
    with monkeypatch.context() as patched:
        patched.setattr(gathering, "run_cells", lambda *arguments: None)  # interrupted at once
        gather(cells, tmp_path / "runs", file)
    assert records(file) == before
    only = {"seed1": cells["seed1"]}

    def here(todo, folder, workers, keep):
        assert todo == only
        keep("seed1", run(replace(todo["seed1"], out=str(tmp_path / "again"))))

    (tmp_path / "runs2").mkdir()
    (tmp_path / "runs2" / "seed1").symlink_to(tmp_path / "again")
    monkeypatch.setattr(gathering, "run_cells", here)
    gather(only, tmp_path / "runs2", file)
    assert [(row["cell"], row["recipe_version"]) for row in records(file)] == [("seed1", 2), ("seed0", 1)]
    assert [is_todays(row) for row in records(file)] == [True, False]


def test_a_benchs_record_keeps_what_was_not_measured_again(tmp_path, monkeypatch, capsys):
    rows = []
    monkeypatch.setitem(bench.BENCHES, "step", lambda options, bar: ([dict(row) for row in rows], {}))
    file = tmp_path / "step.jsonl"
    words = ["bench", "step", "--json", "--record", str(file)]
    rows += [{"width": width, "case": case, "ms": 1.0} for width in (256, 1024) for case in ("Bprop", "cDNI")]
    assert main(words) == 0
    rows[:] = [{"width": 256, "case": "cDNI", "ms": 2.0}]
    assert main(words) == 0
    capsys.readouterr()
    assert [row["ms"] for row in read_lines(file)] == [1.0, 2.0, 1.0, 1.0]


@pytest.mark.parametrize("file", sorted(RESULTS.glob("bench-*.jsonl")), ids=lambda file: file.stem)
def test_what_a_bench_measures_is_told_apart_in_the_committed_records(file):
    rows = read_lines(file)
    assert len({bench.what_is_measured(row) for row in rows}) == len(rows)


# --- the committed records ---------------------------------------------------------------------------------


def committed(name):
    return {row["cell"]: row for row in read_lines(RESULTS / f"{name}.jsonl")}


def experiment(name):
    match name:
        case "feedforward":
            return feedforward.cells(feedforward.BUDGETS["standard"])
        case "recurrent":
            first = recurrent.cells(STANDARD, "text")
            return {**first, **recurrent.cells(STANDARD, "text", records=newest(committed(name).values()))}
        case "sparse":
            return sparse.cells(steps=(600,))
        case "stages":
            return {cell: s for cell, (s, _) in stages.cells().items()}
        case _:
            return {"every-layer": every_layer, "stability": stability, "clocks": clocks}[name].cells()


MACHINE = ("torch", "python", "platform", "cpu_capability")
NAMES = ("every-layer", "feedforward", "stability", "sparse", "recurrent", "clocks", "stages")


@pytest.mark.parametrize("name", NAMES)
def test_committed_records_have_the_settings_of_todays_experiments(name):
    """Those of an older recipe are left to the pages, which must say so."""
    cells, rows = experiment(name), committed(name)
    assert len(rows) == len(read_lines(RESULTS / f"{name}.jsonl"))
    todays = [cell for cell, row in rows.items() if is_todays(row)]
    assert todays
    assert [cell for cell in todays if cell not in cells or not holds(rows[cell], cells[cell])] == []


@pytest.mark.parametrize("recipe", ["add", "delay", "copy", "repeat-copy", "char-lm"])
def test_no_recurrent_task_has_lost_its_records(recipe):
    least = {"add": 106, "delay": 42, "copy": 41, "repeat-copy": 18, "char-lm": 20}
    assert sum(row["recipe"] == recipe for row in committed("recurrent").values()) >= least[recipe]


def test_equal_settings_and_versions_gave_equal_errors():
    """In whichever file, on whichever day: else the code has changed what the settings mean, and must say so."""
    found = {}
    for name in ("every-layer", "feedforward", "stability", "sparse"):
        for row in committed(name).values():
            key = json.dumps(told(row) | {"seed": row["seed"]}, sort_keys=True)
            found.setdefault(key, []).append((name, row))
    twice = [rows for rows in found.values() if len(rows) > 1]
    assert len(twice) > 15
    for (name, first), *others in twice:
        for elsewhere, row in others:
            places = [[each["environment"].get(key) for key in MACHINE] for each in (first, row)]
            near = {} if places[0] == places[1] else {"rel": 0.1}
            for error in ("test_error", "validation_error"):
                told_twice = f"{first['cell']} of {name} and {row['cell']} of {elsewhere}"
                assert row[error] == pytest.approx(first[error], **near), told_twice


def test_versions_are_of_a_family_and_method(monkeypatch):
    settings = asdict(config.Settings(method="local-loss"))
    assert version_of(settings) == config.VERSIONS["local-loss"] == 2
    assert (
        version_of({"recipe": "copy", "method": "local"}) == version_of({"recipe": "clocks", "method": "dni"}) == 1
    )
    monkeypatch.setitem(config.VERSIONS, "cdni", 2)
    assert version_of({"method": "cdni"}) == 2
    assert version_of({"recipe": "copy", "method": "cdni"}) == 1
    assert version_of({"method": "cdni"}, launched=True) == 2
    assert not is_todays({"cell": "a", "settings": {"method": "cdni"}})
    assert is_todays({"cell": "a", "settings": {"method": "cdni"}, "recipe_version": 2})
    assert is_todays({"bench": "methods", "method": "cDNI"})
