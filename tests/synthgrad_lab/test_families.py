"""A family is a folder with eight files and a line in families.py; nothing else lists families."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import synthgrad_lab
from synthgrad_lab.families import FAMILIES, family_of, recipes

SOURCE = Path(synthgrad_lab.__file__).parent
TOY = {
    "__init__": '''"""A toy: fit a line"""''',
    "settings": '''
from dataclasses import dataclass
from typing import Literal
from synthgrad_lab.running import settings as common
METHODS = ("descent",)
LABELS = {"descent": "Gradient descent"}
@dataclass(frozen=True)
class Settings(common.Settings):
    """Settings of a toy run."""
    method: Literal["descent"] = "descent"
    """descent follows the gradient."""
    steps: common.Count = 8
    """Training steps."""
''',
    "recipes": '''
from synthgrad_lab.toy.settings import Settings
USUAL = "descent"
def toy_line(method=USUAL):
    """Fit y = 2 x."""
    return Settings(recipe="toy-line", method=method)
RECIPES = {"toy-line": toy_line}
''',
    "networks": """
from torch import nn
line = lambda: nn.Linear(1, 1)
""",
    "training": """
import torch
from synthgrad_lab.toy.networks import line
class Fit:
    measure = "error"
    def __init__(self, s):
        torch.manual_seed(s.seed)
        self.net, self.rate, self.x = line(), 0.1, torch.linspace(-1, 1, 9)[:, None]
    def step(self, done):
        loss = (self.net(self.x) - 2 * self.x).square().mean()
        loss.backward()
        torch.optim.SGD(self.net.parameters(), self.rate).step()
        self.net.zero_grad()
        return loss.item()
    def point(self):
        return {"error": (self.net(self.x) - 2 * self.x).abs().mean().item()}
    def result(self, seconds, measure):
        return {"error": measure, "seconds": seconds}
    def events(self):
        return []
    def state_dict(self):
        return self.net.state_dict()
    def load_state_dict(self, state):
        self.net.load_state_dict(state)
start = Fit
""",
    "experiments": '''
from dataclasses import dataclass, replace
from synthgrad_lab.running.experiment import Experiment, Planned
from synthgrad_lab.toy.recipes import toy_line
@dataclass(frozen=True)
class Toy(Experiment):
    """The toy, with two seeds."""
    name, records = "toy", "toy"
    def runs(self, gathered):
        return [Planned({"variant": "line"}, replace(toy_line(), seed=seed)) for seed in range(2)]
EXPERIMENTS = {"toy": Toy}
''',
    "bench": '''
from synthgrad_lab.running.bench import Bench
class Toy(Bench):
    """What a toy step costs."""
    def measure(self, bar):
        return [{"case": "toy", "ms": 1.0}], {}
BENCHES = {"toy": Toy}
''',
    "tables": """
from synthgrad_lab.reporting.documents import Table
from synthgrad_lab.reporting.statistics import spread
TABLES = {"toy": Table("toy/toy", lambda rows: [{"network": "line", "error": spread(rows, "error")}], "reproduce toy")}
""",
    "report": """
from synthgrad_lab.reporting.html_report import Section
def section(runs):
    return Section("Toys", [{"seed": str(run.settings["seed"]), "state": run.state} for run in runs])
""",
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the package with the toy in it: a folder, and one line elsewhere."""
    place = tmp_path_factory.mktemp("src")
    shutil.copytree(SOURCE, place / "synthgrad_lab", ignore=shutil.ignore_patterns("__pycache__"))
    (place / "synthgrad_lab" / "toy").mkdir()
    for name, text in TOY.items():
        (place / "synthgrad_lab" / "toy" / f"{name}.py").write_text(text)
    families = place / "synthgrad_lab" / "families.py"
    line = '    Family("synthgrad_lab.stages"),\n'
    assert line in families.read_text()
    families.write_text(families.read_text().replace(line, f'{line}    Family("synthgrad_lab.toy"),\n'))
    return place


@pytest.fixture
def synthgrad(copy, tmp_path):
    def call(*words):
        paths = os.pathsep.join([str(copy), str(SOURCE.parent)])
        done = subprocess.run(
            [sys.executable, "-m", "synthgrad_lab.cli", *words],
            capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


def test_a_new_family_has_every_command(synthgrad, tmp_path):
    assert "A toy" in synthgrad("list")
    assert "toy-line" in synthgrad("run", "--help")
    result = json.loads(synthgrad("run", "toy-line", "--steps", "4", "--out", "a", "--json"))
    assert result["error"] > 0
    assert json.loads(synthgrad("run", "--resume", "a", "--json")) == result
    (tmp_path / "page.md").write_text("<!-- table: toy -->\n<!-- end -->\n")
    synthgrad("reproduce", "toy", "--workers", "1", "--pages", "page.md")
    assert "| line | " in (tmp_path / "page.md").read_text()
    assert len((tmp_path / "results/toy/toy.jsonl").read_text().splitlines()) == 2
    assert "finished" in synthgrad("report", "a", "--out", "page.html")
    assert "Toys" in (tmp_path / "page.html").read_text() or "finished" in (tmp_path / "page.html").read_text()
    assert "| toy | 1.00 |" in synthgrad("bench", "toy")


def test_recipes_experiments_tables_and_benches_have_one_owner_each():
    for part in ("recipes", "experiments", "tables"):
        names = [name for family in FAMILIES for name in getattr(family, part)]
        assert len(names) == len(set(names)) > 0
    assert family_of("copy").name == "recurrent"
    assert set(recipes()) == {name for family in FAMILIES for name in family.recipes}
    with pytest.raises(ValueError, match="unknown recipe 'nonsense'; there are: mnist-fcn"):
        family_of("nonsense")


def test_only_families_py_lists_families():
    names = {family.package for family in FAMILIES}
    for path in SOURCE.rglob("*.py"):
        strings = {n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant)}
        assert path.name == "families.py" or len(names & strings) < 2, path
