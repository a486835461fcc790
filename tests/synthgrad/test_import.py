"""Importing the library is cheap and changes nothing; the harness is above it, never below."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import synthgrad

# Not numpy: jaxtyping imports it where there is one.
HEAVY = ["synthgrad_lab", "matplotlib", "tensorboard", "pooch", "rich", "tyro", "ray", "zmq"]
PROGRAM = """
import sys, torch
def state():
    return (torch.get_default_dtype(), torch.get_default_device(), torch.get_num_threads(),
            torch.are_deterministic_algorithms_enabled(), torch.is_grad_enabled(), torch.get_rng_state().tolist())
before, loaded = state(), set(sys.modules)
import synthgrad
assert state() == before
print(*{name.partition(".")[0] for name in set(sys.modules) - loaded})
"""


def test_import_is_light_and_changes_nothing():
    added = subprocess.check_output([sys.executable, "-W", "error", "-c", PROGRAM], text=True).split()
    assert "synthgrad" in added
    assert not set(added) & set(HEAVY)


SOURCES = sorted(Path(synthgrad.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_the_library_needs_torch_and_jaxtyping_only(path):
    tree = ast.parse(path.read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert all(node.level == 0 for node in froms)
    roots = {name.partition(".")[0] for name in names | {node.module for node in froms}}
    assert "synthgrad_lab" not in roots
    if not {"stages"} & {*path.parts}:  # ZeroMQ and Ray live there
        assert roots - set(sys.stdlib_module_names) <= {"torch", "jaxtyping", "synthgrad"}


def test_public_names():
    for name in ("Interface", "decouple", "Cut", "unlocked", "chained", "compare", "probe", "Quality", "models"):
        assert hasattr(synthgrad, name)
