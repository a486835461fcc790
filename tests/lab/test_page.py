import json
from pathlib import Path

import pytest

from synthgrad_lab import page
from synthgrad_lab.experiments.every_layer import cells
from synthgrad_lab.recipes import PAPER

ROOT = Path(__file__).parents[2]


def record(method, seed, error, layers=4, depth=1):
    quality = {"h1": {"cosine": 0.5 + seed, "norm_ratio": 1.0}} if "dni" in method else {}
    return {
        "cell": f"{method}-{seed}", "method": method, "layers": layers, "steps": 3000, "seed": seed,
        "test_error": error, "validation_error": error + 1, "quality": quality, "settings": {"model_depth": depth},
    }  # fmt: skip


@pytest.fixture
def results(tmp_path):
    rows = [record("bprop", s, e) for s, e in enumerate((1.0, 2.0))]
    rows += [record("cdni", s, e) for s, e in enumerate((2.0, 4.0))] + [record("dni", 0, 7.0)]
    rows += [record("cdni", 0, 5.0, depth=0)]
    (tmp_path / "every-layer.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_a_table_is_computed_from_the_records(results):
    text = page.filled("before\n<!-- table: every-layer -->\nold\n<!-- end -->\nafter", results)
    assert text.splitlines()[0] == "before"
    assert text.splitlines()[-1] == "after"
    assert "old" not in text
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    table = {row[0]: row[1:] for row in rows}
    assert table["Bprop"] == ["4", "3,000", "2", "1.50 ± 0.71", "", "2.50 ± 0.71", "1.8"]
    assert table["cDNI"] == ["4", "3,000", "2", "3.00 ± 1.41", "+1.50", "4.00 ± 1.41", "1.9"]
    assert table["cDNI, linear M"][3:5] == ["5.00", "+3.50"]
    assert table["DNI"][3] == "7.00"
    assert page.filled(text, results) == text


def test_qualities_are_averaged_over_seeds(results):
    text = page.filled("<!-- table: quality -->\n<!-- end -->", results)
    assert "| cDNI, h1 | 1.00 | 1.00 |" in text
    assert "| DNI, h1 | 0.50 | 1.00 |" in text


def test_unknown_tables_and_missing_records_are_refused(results):
    with pytest.raises(ValueError, match="unknown table 'nonsense'"):
        page.filled("<!-- table: nonsense -->\n<!-- end -->", results)
    with pytest.raises(FileNotFoundError, match="bench-step"):
        page.filled("<!-- table: bench-step -->\n<!-- end -->", results)


@pytest.mark.parametrize("name", ["README.md", "docs/results.md", "docs/scale.md"])
def test_the_committed_pages_say_what_the_committed_records_say(name):
    text = (ROOT / name).read_text()
    assert "<!-- table: " in text
    assert page.filled(text, ROOT / "results") == text


def test_every_cell_is_its_own_run():
    todo = cells()
    assert len({repr(settings) for settings in todo.values()}) == len(todo)
    assert {(s.method, s.layers) for s in todo.values()} == {(m, n) for m in (*PAPER, "local-loss") for n in (4, 6)}
