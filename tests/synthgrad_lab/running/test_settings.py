import dataclasses
import math
from dataclasses import asdict, dataclass, field

import pytest

from synthgrad_lab.families import FAMILIES, recipes
from synthgrad_lab.running.ranges import Count, Share
from synthgrad_lab.running.settings import Checked, Settings, built, epochs_to_steps, flat, located, vary


@dataclass(frozen=True)
class Inner(Checked):
    rate: Share = 0.5
    sizes: tuple[Count, ...] = (1, 2)


@dataclass(frozen=True)
class Outer(Checked):
    count: Count = 3
    inner: Inner = field(default_factory=Inner)
    path: str | None = None


def test_varying_changes_nested_settings_by_dotted_names_and_nothing_else():
    found = vary(Outer(), {"count": 7, "inner.rate": 0.25})
    assert found == Outer(7, Inner(0.25))
    assert vary(found, {}) == found
    with pytest.raises(TypeError, match="cuont"):
        vary(Outer(), {"cuont": 7})
    with pytest.raises(AttributeError, match="outer"):
        vary(Outer(), {"outer.rate": 7})


def test_settings_come_back_from_their_record():
    config = Outer(4, Inner(1.0, (5,)), "a")
    assert built(Outer, {**asdict(config), "inner": {"rate": 1.0, "sizes": [5]}}) == config
    assert built(Outer, {"inner": {}}) == Outer()  # newer settings have their defaults
    with pytest.raises(ValueError, match="recorded with settings that no longer exist: gone"):
        built(Outer, {"gone": 1})
    with pytest.raises(ValueError, match="recorded with settings that no longer exist: gone"):
        built(Outer, {"inner": {"gone": 1}})


def test_flat_names_are_dotted():
    names = {"count": 3, "inner.rate": 0.5, "inner.sizes": (1, 2), "path": None}
    assert flat(Outer()) == flat(asdict(Outer())) == names


@pytest.mark.parametrize("recipe", recipes())
def test_every_recipe_comes_back_from_its_record(recipe):
    family = recipes()[recipe]
    for method in family.methods:
        settings = family.defaults(recipe, {"method": method})
        assert (settings.recipe, settings.method, settings.family) == (recipe, method, family.name)
        assert family.settings.from_record(asdict(settings)) == settings
    assert family.defaults(recipe, {"method": "nonsense"}) == family.defaults(recipe, {})


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_setting_of_every_family_is_explained_below_it(family):
    import inspect

    def explained(cls):
        source = "".join(inspect.getsource(each) for each in cls.__mro__ if dataclasses.is_dataclass(each))
        for f in dataclasses.fields(cls):
            if (
                dataclasses.is_dataclass(f.type)
                or "field(default_factory" in source.split(f"    {f.name}:")[1][:90]
            ):
                continue
            below = source.split(f"    {f.name}:")[1].split("\n", 1)[1]
            assert below.lstrip().startswith('"""'), f"{cls.__module__}.{cls.__name__}.{f.name}"

    explained(family.settings)
    for name, value in vars(family.settings()).items():
        if dataclasses.is_dataclass(value):
            explained(type(value))
            assert name in {f.name for f in dataclasses.fields(family.settings)}


def test_paths_are_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert located(Settings(out="a", data_dir=None)).out == str(tmp_path / "a")
    assert located(Settings()) == Settings()


@pytest.mark.parametrize(
    ("epochs", "steps"), [(None, 7), (1.0, 10), (2.5, 25), (1e-9, 1), (math.inf, 7), (-1.0, 7)]
)
def test_epochs_count_as_steps(epochs, steps):
    assert epochs_to_steps(epochs, examples=109, batch=10, steps=7) == steps
