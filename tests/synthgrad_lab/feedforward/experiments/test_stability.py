"""One setting at a time: the runs, and the table made of their records."""

from dataclasses import asdict, replace

from synthgrad_lab.feedforward import tables
from synthgrad_lab.feedforward.experiments.stability import BASES, CHANGES, Stability
from synthgrad_lab.running.settings import flat


def test_each_run_changes_one_thing_of_its_base():
    todo = list(Stability().runs())
    assert len({repr(p.settings) for p in todo}) == len(todo)
    for p in todo:
        before = flat(asdict(BASES[p.labels["base"]]))
        changed = {key for key, value in flat(asdict(p.settings)).items() if value != before[key]} - {"seed"}
        assert changed == CHANGES[p.labels["change"]].keys()


def test_changes_are_rows_and_methods_columns():
    records = [
        {
            "run": f"{method}--{change}--seed{seed}", "change": change, "method": method, "layers": 6,
            "validation_error": error + seed, "settings": asdict(replace(BASES[method], seed=seed)),
        }
        for method, change, error in (("cdni", "as-it-is", 1.0), ("cdni", "clip-1", 3.0), ("dni", "as-it-is", 5.0))
        for seed in (0, 1)
    ]  # fmt: skip
    assert tables.stability(records) == [
        {"change": "as-it-is", "cDNI, 6 layers": "1.50 ± 0.71", "DNI, 6 layers": "5.50 ± 0.71"},
        {"change": "clip-1", "cDNI, 6 layers": "3.50 ± 0.71"},
    ]
