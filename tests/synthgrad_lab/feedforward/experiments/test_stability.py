"""One setting at a time: the cells, and the table made of their records."""

from dataclasses import asdict

from synthgrad_lab.feedforward import tables as feedforward_tables
from synthgrad_lab.feedforward.experiments.stability import BASES, CHANGES, cells


def test_each_cell_changes_one_thing_of_its_base():
    todo = cells()
    assert len({repr(s) for s in todo.values()}) == len(todo)
    for name, s in todo.items():
        base, change, _ = name.split("--")
        before = asdict(BASES[base])
        changed = {key for key, value in asdict(s).items() if value != before[key]} - {"seed"}
        assert changed == CHANGES[change].keys()


def test_changes_are_rows_and_methods_columns():
    records = [
        {"cell": f"{method}--{change}--seed{seed}", "method": method, "layers": 6, "validation_error": error + seed}
        for method, change, error in (("cdni", "as-it-is", 1.0), ("cdni", "clip-1", 3.0), ("dni", "as-it-is", 5.0))
        for seed in (0, 1)
    ]
    assert feedforward_tables.stability(records) == [
        {"change": "as-it-is", "cDNI, 6 layers": "1.50 ± 0.71", "DNI, 6 layers": "5.50 ± 0.71"},
        {"change": "clip-1", "cDNI, 6 layers": "3.50 ± 0.71"},
    ]
