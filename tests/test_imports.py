"""The imports of both packages, read from the source: no circles, and arrows that only go down.

A folder of a package is a floor; so is a file in the package's root. Imports inside functions and under
TYPE_CHECKING count. ``from package import name`` counts as an import of the file that the package's ``__init__``
takes the name from.
"""

import ast
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src"
PACKAGES = ["synthgrad", "synthgrad_lab"]
FLOORS = [
    {"cli"},
    {"commands"},
    {"families"},
    {"stages"},
    {"feedforward", "recurrent", "clocks", "language"},
    {"data", "reporting"},
    {"running"},
    {"synthgrad"},
]
"""The lab's floors from top to bottom; the library is the lowest one."""
LONGEST = 9
ENTRIES = 12

Graph = dict[str, set[str]]


# --- the graph ---------------------------------------------------------------------------------------------


@cache
def trees() -> dict[str, ast.Module]:
    """Each module's syntax tree, by the module's name; a package's is that of its ``__init__``."""
    found = {}
    for path in sorted(path for package in PACKAGES for path in (SRC / package).rglob("*.py")):
        parts = path.relative_to(SRC).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ast.parse(path.read_text())
    return found


def file_of(module: str) -> str:
    """The path of a module below src, for messages."""
    path = module.replace(".", "/")
    return f"{path}/__init__.py" if (SRC / path).is_dir() else f"{path}.py"


def imports(module: str) -> list[tuple[str, str | None]]:
    """All that a module imports: (module, None), or (module, name) for ``from module import name``."""
    found = []
    for node in ast.walk(trees()[module]):
        if isinstance(node, ast.Import):
            found += [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [(node.module or "", alias.name) for alias in node.names]
    return found


def origin(module: str, name: str | None) -> str:
    """The module that an imported name comes from."""
    if name is None:
        return module
    if f"{module}.{name}" in trees():
        return f"{module}.{name}"
    if (SRC / module.replace(".", "/")).is_dir():  # a package: look where its __init__ takes the name from
        for source, taken in imports(module):
            if taken == name and source in trees():
                return origin(source, name)
    return module


@cache
def graph() -> Graph:
    """The modules of both packages that each module imports."""
    found = {module: {origin(*each) for each in imports(module)} & trees().keys() for module in trees()}
    return {module: imported - {module} for module, imported in found.items()}


def part(package: str) -> Graph:
    """The graph of one package alone."""
    inside = {module for module in graph() if module.partition(".")[0] == package}
    return {module: graph()[module] & inside for module in inside}


def floor(module: str) -> str:
    """The folder of a module, or its name if it lies in the root; the library is one floor for the lab."""
    return module.split(".")[1] if "." in module else module


def floors(package: str) -> dict[tuple[str, str], list[str]]:
    """For each two floors of a package where one imports the other: the imports, as text."""
    found: dict[tuple[str, str], list[str]] = {}
    for module, imported in part(package).items():
        for other in imported:
            if floor(module) != floor(other):
                found.setdefault((floor(module), floor(other)), []).append(f"{file_of(module)} → {file_of(other)}")
    return found


def lab_floors() -> dict[tuple[str, str], list[str]]:
    """``floors`` of the lab, with the library as one more floor."""
    found = floors("synthgrad_lab")
    for module in part("synthgrad_lab"):
        for other in sorted(graph()[module] - part("synthgrad_lab").keys()):
            found.setdefault((floor(module), "synthgrad"), []).append(f"{file_of(module)} → {file_of(other)}")
    return found


def circle(edges: Graph) -> list[str]:
    """A circle of a graph, first node repeated at the end; empty if there is none."""
    done: set[str] = set()

    def search(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        for other in sorted(edges.get(node, ())):
            if found := search(other, [*path, node]):
                return found
        done.add(node)
        return []

    return next((found for node in sorted(edges) if (found := search(node, []))), [])


def longest(edges: Graph, start: str, path: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The longest path from a node that visits no node twice."""
    path = (*path, start)
    further = (longest(edges, other, path) for other in sorted(edges.get(start, ())) if other not in path)
    return max(further, key=len, default=path)


def as_graph(pairs: dict[tuple[str, str], list[str]]) -> Graph:
    """The graph of the floors of ``floors``."""
    found: Graph = {}
    for above, below in pairs:
        found.setdefault(above, set()).add(below)
    return found


# --- the rules ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("package", PACKAGES)
def test_no_circle_of_files(package):
    found = circle(part(package))
    assert not found, "a circle: " + " → ".join(file_of(module) for module in found)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_circle_of_folders(package):
    pairs = floors(package)
    found = circle(as_graph(pairs))
    by = [imports for pair in pairwise(found) for imports in pairs[pair]]
    assert not found, f"a circle: {' → '.join(found)}, by\n" + "\n".join(by)


def test_imports_of_the_lab_only_go_down():
    rank = {name: k for k, names in enumerate(FLOORS) for name in names}
    rank["synthgrad_lab"] = -1  # the package itself
    wrong = []
    for (above, below), found in lab_floors().items():
        assert above in rank, f"src/synthgrad_lab/{above} is on no floor; give it one in FLOORS"
        assert below in rank, f"src/synthgrad_lab/{below} is on no floor; give it one in FLOORS"
        if rank[above] >= rank[below]:
            wrong += found
    assert not wrong, "imports that go up or stay on their floor:\n" + "\n".join(sorted(wrong))


def test_the_way_down_from_the_command_is_short():
    path = longest(as_graph(lab_floors()), "cli")
    assert len(path) <= LONGEST, " → ".join(path)


@pytest.mark.parametrize("module", [module for module in trees() if module.partition(".")[0] == "synthgrad"])
def test_the_library_needs_torch_and_jaxtyping_only(module):
    levels = [node.level for node in ast.walk(trees()[module]) if isinstance(node, ast.ImportFrom)]
    assert all(level == 0 for level in levels), f"{file_of(module)}: a relative import"
    roots = {name.partition(".")[0] for name, _ in imports(module)}
    assert "synthgrad_lab" not in roots, f"{file_of(module)} imports the lab"
    allowed = {"torch", "jaxtyping", "synthgrad"}
    if floor(module) == "stages":  # the processes, which have extras of their own
        allowed |= {"zmq", "ray"}
    others = roots - set(sys.stdlib_module_names) - allowed
    assert not others, f"{file_of(module)} imports {', '.join(sorted(others))}"


@pytest.mark.parametrize("package", PACKAGES)
def test_a_packages_root_is_small(package):
    entries = sorted(path.name for path in (SRC / package).iterdir() if path.name != "__pycache__")
    assert len(entries) <= ENTRIES, f"src/{package} holds {len(entries)} entries: {', '.join(entries)}"


# --- the reading itself ------------------------------------------------------------------------------------


def test_imports_are_read_wherever_they_stand(monkeypatch):
    source = "def f():\n    import a.b\nif TYPE_CHECKING:\n    from c import d, e as g\n"
    monkeypatch.setitem(trees(), "x", ast.parse(source))
    assert set(imports("x")) == {("a.b", None), ("c", "d"), ("c", "e")}


def test_a_name_of_a_package_counts_as_its_file():
    assert origin("synthgrad", "Interface") == "synthgrad.interface.interface"
    assert origin("synthgrad.models", "MLP") == "synthgrad.models.mlp"
    assert origin("synthgrad", "checkpoint") == "synthgrad.checkpoint"
    assert origin("synthgrad.interface.numbers", "finite") == "synthgrad.interface.numbers"


def test_circles_and_longest_paths_are_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}}) == []
    assert longest({"a": {"b", "c"}, "b": {"c"}}, "a") == ("a", "b", "c")
