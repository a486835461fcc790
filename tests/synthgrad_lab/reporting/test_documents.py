import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest

from synthgrad_lab.cli import main
from synthgrad_lab.commands.reproduce import DOCUMENTS, tables
from synthgrad_lab.feedforward import settings as feedforward
from synthgrad_lab.feedforward.experiments.every_layer import EveryLayer
from synthgrad_lab.feedforward.recipes import mnist_fcn
from synthgrad_lab.feedforward.settings import PAPER
from synthgrad_lab.reporting import documents
from synthgrad_lab.running import grid
from synthgrad_lab.running.settings import vary

ROOT = Path(__file__).parents[3]


def filled(text, results):
    return documents.filled(text, tables(), results)


def record(method, seed, error, layers=4, depth=1):
    quality = {"h1": {"cosine": 0.5 + seed, "norm_ratio": 1.0}} if "dni" in method else {}
    settings = vary(mnist_fcn(method), {"layers": layers, "seed": seed, "model.depth": depth})
    return {
        "run": f"{method}-{seed}", "recipe": "mnist-fcn", "method": method, "layers": layers,
        "steps": 3000, "seed": seed,
        "test_error": error, "validation_error": error + 1, "quality": quality, "settings": asdict(settings),
    }  # fmt: skip


@pytest.fixture
def results(tmp_path):
    rows = [record("bprop", s, e) for s, e in enumerate((1.0, 2.0))]
    rows += [record("cdni", s, e) for s, e in enumerate((2.0, 4.0))] + [record("dni", 0, 7.0)]
    rows += [record("cdni", 0, 5.0, depth=0)]
    (tmp_path / "feedforward").mkdir()
    (tmp_path / "feedforward/every-layer.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_a_table_is_computed_from_the_records(results):
    text = filled("before\n<!-- table: every-layer -->\nold\n<!-- end -->\nafter", results)
    assert text.splitlines()[0] == "before"
    assert text.splitlines()[-1] == "after"
    assert "old" not in text
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    table = {row[0]: row[1:] for row in rows}
    assert table["Bprop"] == ["4", "3,000", "2", "1.50 ± 0.71", "", "2.50 ± 0.71", "1.8"]
    assert table["cDNI"] == ["4", "3,000", "2", "3.00 ± 1.41", "+1.50", "4.00 ± 1.41", "1.9"]
    assert table["cDNI, linear M"][3:5] == ["5.00", "+3.50"]
    assert table["DNI"][3] == "7.00"
    assert filled(text, results) == text


def test_qualities_are_averaged_over_seeds(results):
    text = filled("<!-- table: quality -->\n<!-- end -->", results)
    assert "| cDNI, h1 | 1.00 | 1.00 |" in text
    assert "| DNI, h1 | 0.50 | 1.00 |" in text


def test_unknown_tables_and_missing_records_are_refused(results):
    with pytest.raises(ValueError, match="unknown table 'nonsense'"):
        filled("<!-- table: nonsense -->\n<!-- end -->", results)
    with pytest.raises(FileNotFoundError, match="bench-step"):
        filled("<!-- table: bench-step -->\n<!-- end -->", results)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_committed_pages_say_what_the_committed_records_say(name):
    text = (ROOT / name).read_text()
    assert filled(text, ROOT / "results") == text


PAGES = sorted(path for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")))
HEAD = re.compile(r"^\|( *:?-{3,}:? *\|)+ *$")


def empty_tables(text):
    """Lines that end a table's head with no row below; and tables that say so themselves."""
    lines = [*text.splitlines(), ""]
    bare = [
        lines[k - 1] for k in range(1, len(lines) - 1) if HEAD.match(lines[k]) and not lines[k + 1].startswith("|")
    ]
    return bare + [line for line in lines if documents.EMPTY.strip("()") in line]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_no_committed_page_has_an_empty_table(path):
    assert empty_tables(path.read_text()) == []


@pytest.mark.parametrize(
    "text", ["| a | b |\n| --- | ---: |\n\ntext", "| a |\n| --- |", f"x\n{documents.markdown([])}y"]
)
def test_an_empty_table_is_found(text):
    assert len(empty_tables(text)) == 1
    assert empty_tables("| a |\n| --- |\n| 1 |\n") == []


def with_versions(results, versions):
    """Both seeds of Bprop as they are; of cDNI, by seed, records of other versions."""
    rows = [record("bprop", s, 1.0) for s in (0, 1)]
    rows += [record("cdni", seed, 2.0 + seed) | {"version": version} for seed, version in enumerate(versions)]
    (results / "feedforward/every-layer.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_table_takes_records_of_todays_recipes_alone(results, monkeypatch):
    place = "<!-- table: every-layer{} -->\n<!-- end -->"
    with_versions(results, [1, 2, 2, 2])
    with pytest.raises(ValueError, match=r"another version of their recipe, cdni \(version 2, today 1\): 3"):
        filled(place.format(""), results)
    monkeypatch.setitem(feedforward.Settings.versions, "cdni", 2)
    text = filled(place.format(""), results)
    assert "| cDNI | 4 | 3,000 | 3 | 4.00 ± 1.00 |" in text  # the older seed is in no mean
    monkeypatch.setitem(feedforward.Settings.versions, "cdni", 3)
    with pytest.raises(ValueError, match=r"`synthgrad reproduce every-layer` makes them again .*every-layer older"):
        filled(place.format(""), results)
    text = filled(place.format(" older"), results)
    assert text.startswith("<!-- table: every-layer older -->\n")
    assert "| cDNI | 4 | 3,000 | 3 | 4.00 ± 1.00 |" in text
    assert "Made with an older version of the recipe: cdni (version 2, today 3) of mnist-fcn 4x." in text
    assert filled(text, results) == text
    monkeypatch.setitem(feedforward.Settings.versions, "cdni", 2)
    assert filled(text, results).startswith("<!-- table: every-layer -->\n")  # the mark goes, and with it the line
    assert "older" not in filled(text, results)


def test_a_table_without_a_row_is_refused(results):
    (results / "feedforward/every-layer.jsonl").write_text("")
    for name in ("every-layer", "quality"):
        with pytest.raises(ValueError, match=f"table {name}: .*every-layer.jsonl holds no record for it"):
            filled(f"<!-- table: {name} -->\n<!-- end -->", results)


def test_records_of_different_settings_are_never_averaged(results):
    rows = [record("bprop", seed, 1.0) for seed in (0, 1)]
    rows[1]["settings"]["optimizer"]["lr"] = 0.5
    (results / "feedforward/every-layer.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match=r"bprop-0, bprop-1 do not repeat one run \(optimizer.lr: 0.001, 0.5\)"):
        filled("<!-- table: every-layer -->\n<!-- end -->", results)


# --- the command reproduce ---------------------------------------------------------------------------------


@pytest.fixture
def no_runs(monkeypatch):
    """What would be run: nothing is."""
    asked = []
    monkeypatch.setattr(grid, "run_grid", lambda todo, *arguments: asked.append(list(todo)))
    return asked


def test_reproduce_looks_at_its_documents_before_it_runs(tmp_path, monkeypatch, capsys, no_runs):
    monkeypatch.chdir(tmp_path)
    words = ["reproduce", "every-layer", "--results", str(ROOT / "results")]
    assert main([*words, "--pages", "README.md"]) == 1
    assert "there is no README.md; nothing was run" in capsys.readouterr().err
    (tmp_path / "page.md").write_text("<!-- table: nonsense -->\n<!-- end -->")
    assert main([*words, "--pages", "page.md"]) == 1
    assert "unknown table 'nonsense'" in capsys.readouterr().err
    assert no_runs == []


def test_reproduce_outside_a_clone_prints_its_tables(tmp_path, monkeypatch, capsys, results, no_runs):
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", "every-layer", "--results", str(results)]) == 0
    out, told = capsys.readouterr()
    assert len(no_runs) == 1
    assert "no document is updated: this folder is no clone of the repository" in told
    assert "| Bprop | 4 | 3,000 | 2 | 1.50 ± 0.71 |" in out
    assert {path.name for path in tmp_path.iterdir()} == {"feedforward"}
    assert main(["reproduce", "every-layer", "--results", str(results), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pages"] == []


def test_reproduce_runs_only_what_it_is_asked_for(tmp_path, monkeypatch, capsys, results, no_runs):
    monkeypatch.chdir(tmp_path)
    words = ["reproduce", "every-layer", "--results", str(results), "--only"]
    assert main([*words, "local-loss-4x", "dni-10000--seed1"]) == 0
    assert no_runs == [["dni-10000--seed1", *(f"local-loss-4x--seed{seed}" for seed in range(3))]]
    assert main([*words, "nothing"]) == 1
    assert "--only nothing: no run of every-layer has such a name" in capsys.readouterr().err


def test_reproduce_says_what_has_no_record_of_today(tmp_path, monkeypatch, capsys, results):
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", "every-layer", "--results", str(results), "--tables-only"]) == 0
    assert "42 runs have no record of today's settings and recipe: dni-10000--seed0" in capsys.readouterr().err


def test_every_planned_run_is_its_own():
    todo = list(EveryLayer().runs([]))
    assert len({repr(p.settings) for p in todo}) == len({p.name for p in todo}) == len(todo)
    found = {(p.settings.method, p.settings.layers) for p in todo}
    assert found == {(m, n) for m in (*PAPER, "local-loss") for n in (4, 6)}


@pytest.mark.parametrize("wrong", [{"gone": 1}, {"model": {"gone": 1}}, {"steps": -3}])
def test_a_record_with_settings_that_no_longer_exist_is_an_error(results, wrong):
    rows = [record("bprop", 0, 1.0)]
    rows[0]["settings"] |= wrong
    (results / "feedforward/every-layer.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match=r"table every-layer: .*every-layer.jsonl, run bprop-0: .*; remove it"):
        filled("<!-- table: every-layer -->\n<!-- end -->", results)
