"""The commands about one run: run, list, show; heavy imports wait until they are needed."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from synthgrad_lab.families import CLOCKS, IMAGES, KINDS, SEQUENCES, AnySettings, kind_of
from synthgrad_lab.feedforward.recipes import paper_preset
from synthgrad_lab.feedforward.settings import Settings
from synthgrad_lab.running.jsonl import to_json
from synthgrad_lab.running.settings import BadSetting, describe, nearest, override, words

FIXED = ("recipe", "net")
"""Settings that the recipe's name decides."""


def do_run(options: Namespace) -> None:
    """Run a recipe, or go on with a run."""
    from synthgrad_lab.running import loop as run
    from synthgrad_lab.running.console import Bars

    recipe, pairs = recipe_of(options.words)
    if folder := pairs.pop("resume", None):
        if pairs or recipe:
            raise BadSetting("resume= goes on with a run's own settings; leave out everything else")
        settings = run.recorded(Path(folder))
    else:
        settings = settings_of(recipe, pairs)
    with Bars() as bars:
        bar = bars.bar(settings.label, settings.steps, settings.progress_format)
        result = run.resume(Path(folder), bar) if folder else run.run(settings, bar)
    if options.json:
        print(to_json(result))
    elif isinstance(settings, Settings):
        _tell_images(result)
    else:
        _tell(result)


def _tell(result: dict[str, Any]) -> None:
    """A result, one measure a line."""
    plain = {key: value for key, value in result.items() if not isinstance(value, dict | list)}
    for key, value in plain.items():
        print(f"{key.replace('_', ' '):32} {f'{value:.5g}' if isinstance(value, float) else value}")
    for name, quality in result.get("quality", {}).items():
        print(
            f"{f'quality at the {name}':32} "
            + ", ".join(f"{k.replace('_', ' ')} {v:.2f}" for k, v in quality.items())
        )


def _tell_images(result: dict[str, Any]) -> None:
    print(f"test error        {result['test_error']:.2f} %")
    print(f"validation error  {result['validation_error']:.2f} %")
    print(f"updates per layer {' '.join(map(str, result['updates_per_layer']))}")
    print(f"time per step     {1000 * result['seconds_per_step']:.2f} ms")
    for name, quality in result["quality"].items():
        print(f"quality at {name}     " + ", ".join(f"{k.replace('_', ' ')} {v:.2f}" for k, v in quality.items()))
    print(f"record            {result['record']}")


def recipe_of(arguments: Sequence[str]) -> tuple[str | None, dict[str, str]]:
    """The recipe's name, if there is one, and the words of the form key=value."""
    plain = [word for word in arguments if "=" not in word]
    if len(plain) > 1:
        raise BadSetting(f"one recipe at a time, not {' and '.join(plain)}; settings are of the form key=value")
    return (plain[0] if plain else None), words(word for word in arguments if "=" in word)


def settings_of(recipe: str | None, pairs: dict[str, str]) -> AnySettings:
    """A recipe's settings with what the words change."""
    known = [name for kind in KINDS for name in kind.recipes]
    if recipe is None:
        raise BadSetting(f"which recipe? there are: {', '.join(known)}")
    if recipe not in known:
        raise BadSetting(f"unknown recipe {recipe!r}; {nearest(recipe, known)}")
    if fixed := [key for key in FIXED if key in pairs]:
        raise BadSetting(f"{fixed[0]} is no setting: the recipe is the first word, of {', '.join(known)}")
    kind = kind_of(recipe)
    if kind is not IMAGES:
        told = override(kind.recipes[recipe](kind.usual), {k: v for k, v in pairs.items() if k == "method"})
        return override(kind.recipes[recipe](told.method), pairs)
    if "steps" in pairs and "epochs" in pairs:
        raise BadSetting("steps and epochs say the same thing twice; give one of them")
    chosen = override(Settings(), {k: v for k, v in pairs.items() if k in ("method", "preset", "data")})
    settings: Any = kind.recipes[recipe](chosen.method)
    if "data" in pairs:
        settings = replace(settings, data=chosen.data)
    if chosen.preset == "paper":
        settings = paper_preset(settings)
    return override(replace(settings, epochs=None) if "steps" in pairs else settings, pairs)


def do_list(options: Namespace) -> None:
    """Show the recipes."""
    if options.json:
        print(to_json({name: describe_recipe(name) for kind in KINDS for name in kind.recipes}))
        return
    for kind in KINDS:
        first = next(iter(kind.recipes))
        print(f"{kind.title}: settings, with their defaults in {first}\n")
        for key, default, text in describe(_usual(first)):
            if key not in FIXED:
                print(f"  {key + '=' + default:24} {text}")
        for name, recipe in kind.recipes.items():
            print(f"\n{name}: {recipe.__doc__}")
            usual = describe_recipe(name)
            print(*_changes(usual, describe_recipe(first)))
            for method in kind.methods:
                changed = _changes(describe_recipe(name, method), usual)
                print(f"  with {' '.join(changed)}\n" if changed[1:] else "", end="")
        print()


def do_show(options: Namespace) -> None:
    """Print an example of a recurrent task, or who does what when on two clocks."""
    recipe, pairs = recipe_of(options.words)
    settings: Any = settings_of(recipe, pairs)
    if kind_of(recipe) is SEQUENCES:
        from synthgrad_lab.recurrent.tasks import task_of

        example = task_of(settings).show()
    elif kind_of(recipe) is CLOCKS:
        from synthgrad_lab.clocks.schedule import as_text, schedule

        example = as_text(schedule(settings))
    else:
        raise BadSetting(f"only these can be shown: {', '.join((*SEQUENCES.recipes, *CLOCKS.recipes))}")
    print(to_json({"recipe": recipe, "example": example}) if options.json else example)


def _changes(settings: dict[str, str], usual: dict[str, str]) -> list[str]:
    return [f"{k}={v}" for k, v in settings.items() if v != usual[k] and k not in FIXED]


def describe_recipe(name: str, method: Any = None) -> dict[str, str]:
    """A recipe's settings, as texts."""
    return {key: default for key, default, _ in describe(_usual(name, method))}


def _usual(name: str, method: Any = None) -> AnySettings:
    kind = kind_of(name)
    return kind.recipes[name](method or kind.usual)
