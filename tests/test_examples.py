import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_learns(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    trained = module.train()
    assert (trained[0] if isinstance(trained, tuple) else trained) < 0.1  # guessing is at 0.69


def test_the_stages_example_runs_unchanged_in_processes():
    program = [sys.executable, str(ROOT / "examples/stages.py"), "processes"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.rpartition(" ")[2]) < 0.2


@pytest.mark.parametrize(
    "page", ["README.md", "docs/all-of-synthgrad.md", "docs/recurrent.md", "docs/clocks.md", "docs/stages.md"]
)
def test_the_python_of_a_page_runs_from_top_to_bottom(page):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert blocks
    done = subprocess.run([sys.executable, "-W", "error", "-c", "\n".join(blocks)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_readmes_loop_is_an_example():
    (loop,) = re.findall(
        r"    for _ in range\(steps\):\n(.*?)    return", (ROOT / "examples/send_receive.py").read_text(), re.DOTALL
    )
    statements = [line.split("#")[0].strip() for line in loop.splitlines() if line.strip()]
    readme = [line.split("#")[0].strip() for line in (ROOT / "README.md").read_text().splitlines()]
    assert [s for s in statements if s not in readme] == []


def promised():
    """The tests that docs/guarantees.md names: file, and a piece of the test's name if one is given."""
    for row in re.findall(r"^\|[^|]+\|([^|]+)\|$", (ROOT / "docs/guarantees.md").read_text(), re.MULTILINE):
        for part in row.split(";"):
            path, *names = re.findall(r"`([^`]+)`", part) if ":" in part else (None,)
            files = [path] if path else re.findall(r"`([^`]+)`", part)
            for file in files:
                folder, _, name = file.rpartition("/")
                yield Path(folder) / f"test_{name.removeprefix('test_')}.py", [n.strip("…") for n in names]


def test_each_promise_has_its_test():
    found = list(promised())
    assert len(found) > 30
    for path, names in found:
        tests = re.findall(r"def test_(\w+)", (ROOT / "tests" / path).read_text())
        assert tests, path
        assert all(any(name in test for test in tests) for name in names), (path, names)
