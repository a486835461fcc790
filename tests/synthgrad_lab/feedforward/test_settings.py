"""Settings: their ranges and conflicts, their steps, and how the command line makes them."""

import json
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthgrad_lab.cli import main
from synthgrad_lab.commands.list import FIXED
from synthgrad_lab.commands.run import group
from synthgrad_lab.commands.words import BadUsage, parse
from synthgrad_lab.families import recipes
from synthgrad_lab.feedforward.recipes import RECIPES, defaults, paper_preset
from synthgrad_lab.feedforward.settings import INTERFACED, METHODS, TRAINING, Settings
from synthgrad_lab.feedforward.trainer import Trainer
from synthgrad_lab.running.settings import flat, vary


def asked(recipe, *words):
    """The settings that ``synthgrad run`` makes of its words."""
    return parse(group().leaves[recipe][1](words), words, "synthgrad").settings


# --- bounds and conflicts ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("steps", 0), ("width", 0), ("model.hidden", 0), ("model.input_hidden", 0), ("model.kernel", 0)],
        *[("run.eval_every", 0), ("run.checkpoint_every", 0), ("run.threads", 0), ("layers", 1), ("batch", 1)],
        *[("optimizer.lr", -1e-3), ("model.lr", -1.0), ("model.depth", -1), ("seed", -1), ("model.anchor", -0.5)],
        *[("mixing.warm_up", -1), ("model.target_every", -1), ("model.unit_factor", 0.0), ("optimizer.clip", 0.0)],
        *[("epochs", 0.0), ("epochs", -1.0), ("model.beta1", 1.0), ("model.beta2", -0.1), ("p_update", 0.0)],
        ("p_update", 1.1),
    ],
)
def test_numbers_out_of_range(name, value):
    with pytest.raises(ValueError, match=f"{name.split('.')[-1]}={value}: it must be"):
        vary(Settings(), {name: value})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    "name", ["optimizer.lr", "steps", "epochs", "optimizer.clip", "p_update", "model.anchor", "model.beta1"]
)
def test_nan_and_infinity_are_in_no_range(name, value):
    with pytest.raises(ValueError, match=f"{name.split('.')[-1]}={value}"):
        vary(Settings(), {name: value})


@pytest.mark.parametrize("name", ["lam", "lam_end"])
@pytest.mark.parametrize("value", [(-0.1,), (1.5,), (float("nan"),), (0.0, 2.0, 0.0)])
def test_shares_out_of_range(name, value):
    with pytest.raises(ValueError, match=f"{name}=.*: it must be from 0 to 1"):
        vary(Settings(), {"unlock": "fused", f"mixing.{name}": value})


@pytest.mark.parametrize("name", ["lam", "lam_end"])
@pytest.mark.parametrize("value", [(0.5, 0.5), (0.1, 0.2, 0.3, 0.4), ()])
def test_a_wrong_number_of_shares(name, value):
    with pytest.raises(ValueError, match=f"{name}=.*: it must be one number, or 3, one per interface"):
        vary(Settings(), {"unlock": "fused", f"mixing.{name}": value})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mixing.lam": (0.5,)}, "unlock=fused"),
        ({"mixing.lam_end": (0.5,)}, "unlock=fused"),
        ({"unlock": "complete", "mixing.lam": (0.1, 0.0, 0.0)}, "unlock=fused"),
        *[({"method": m, "unlock": "complete"}, "needs interfaces") for m in METHODS if m not in INTERFACED],
        ({"method": "bprop", "unlock": "fused"}, "needs interfaces"),
        ({"unlock": "complete", "mixing.warm_up": 10}, "unlock=complete and p_update below 1 do not"),
        ({"unlock": "fused", "p_update": 0.5}, "p_update below 1"),
        ({"method": "stale", "p_update": 0.5}, "p_update below 1"),
    ],
)
def test_settings_that_contradict_each_other(changes, message):
    with pytest.raises(ValueError, match=message):
        vary(Settings(), changes)


# --- epochs, and the way into a record and back ------------------------------------------------------------


@given(st.sampled_from(sorted(TRAINING)), st.integers(2, 60_000), st.floats(1e-3, 50))
def test_epochs_are_counted_in_whole_batches(data, batch, epochs):
    steps = Settings(data=data, batch=batch, epochs=epochs).steps
    assert isinstance(steps, int)
    assert steps >= 1
    assert abs(steps - epochs * (TRAINING[data] // batch)) <= (1 if steps == 1 else 0.5)


shares = st.tuples(*[st.floats(0, 1)] * 3) | st.tuples(st.floats(0, 1))


@given(st.sampled_from(sorted(RECIPES)), st.sampled_from(METHODS), shares, st.none() | shares)
def test_a_record_gives_the_settings_back(recipe, method, lam, lam_end):
    s = RECIPES[recipe](method)
    if method in INTERFACED:
        s = vary(s, {"unlock": "fused", "mixing.lam": lam, "mixing.lam_end": lam_end})
        assert s.mixing.lam == lam
    for each in (s, paper_preset(s)):
        assert Settings.from_record(json.loads(json.dumps(asdict(each)))) == each


# --- the command line --------------------------------------------------------------------------------------


def test_epochs_are_replaced_by_steps_and_the_other_way_round():
    assert asked("cifar-cnn").epochs is not None
    fewer = asked("cifar-cnn", "--steps=7")
    assert (fewer.steps, fewer.epochs) == (7, None)
    assert asked("mnist-fcn", "--epochs=2").steps == 2 * (55_000 // 256)
    assert asked("mnist-fcn", "--epochs=2", "--data=cifar10").steps == 2 * (45_000 // 256)
    with pytest.raises(BadUsage, match="--steps and --epochs"):
        asked("mnist-fcn", "--steps=7", "--epochs=2")


def test_a_choice_that_is_not_valid_changes_no_default():
    """The command refuses it."""
    chosen = {"method": "cdnni", "data": "minst", "preset": "papre"}
    assert defaults("cifar-cnn", chosen) == RECIPES["cifar-cnn"]("cdni")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_papers_preset(recipe, method):
    paper = ("--preset=paper", f"--method={method}")
    s = asked(recipe, *paper)
    assert (s.preset, s.method, s.recipe) == ("paper", method, recipe)
    assert (s.optimizer.lr, s.steps, s.batch, s.optimizer.decay, s.epochs) == (3e-5, 500_000, 256, "steps", None)
    assert s.width == RECIPES[recipe](method).width
    changed = vary(s, {"steps": 9, "optimizer.lr": 0.5})
    assert asked(recipe, *paper, "--steps=9", "--optimizer.lr=0.5") == changed
    assert asked(recipe, "--preset=paper", "--epochs=1", "--batch=100").steps == TRAINING[s.data] // 100


def test_the_papers_rates_fall_to_a_tenth_twice():
    trainer = Trainer(asked("mnist-fcn", "--preset=paper", "--width=4", "--model.hidden=4"))
    rates = []
    for step in (0, 299_999, 300_000, 399_999, 400_000, 499_999):
        trainer.schedule(step)
        rates.append([g["lr"] for o in trainer.optimizers for g in o.param_groups])
    assert [r[0] for r in rates] == pytest.approx([3e-5, 3e-5, 3e-6, 3e-6, 3e-7, 3e-7])
    assert all(len(set(r)) == 1 for r in rates)


def test_a_share_per_interface():
    shares = ("--mixing.lam", "0.5", "0.2", "0", "--mixing.lam-end", "1")
    s = asked("mnist-fcn", "--unlock=fused", *shares)
    assert (s.mixing.lam, s.mixing.lam_end) == ((0.5, 0.2, 0.0), (1.0,))
    assert asked("mnist-fcn", "--mixing.lam-end", "None").mixing.lam_end is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("mnist-fcn --steps 3 --epochs 1", "--steps and --epochs"),
        ("mnist-fcn --mixing.lam 0.5 0.2 --unlock fused", "one per interface"),
        ("cifar-cnn --method bprop --unlock complete", "needs interfaces"),
    ],
)
def test_settings_that_do_not_fit_together_are_answered_in_a_line(capsys, words, message):
    assert main(["run", *words.split()]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert len(err.splitlines()) == 1
    assert out == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("mnist-fcn --net cnn", "--net, cnn"),
        ("mnist-fcn --preset papre", "Expected one of ('fast'"),
        ("mnist-fcn --mixing.lam 0.5 half --unlock fused", "--mixing.lam"),
    ],
)
def test_words_that_are_not_settings_are_named(capsys, words, message):
    assert main(["run", *words.split()]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert out == ""


def test_every_recipe_and_setting_is_listed(capsys):
    def listed(*words):
        assert main(["list", *words]) == 0
        return capsys.readouterr().out

    text = listed()
    parts = [text.index(f"  {name} ") for name in RECIPES]
    assert parts == sorted(parts)
    text = listed("mnist-fcn")
    names = [name.replace("_", "-") for name in flat(Settings()) if name not in FIXED]
    assert all(f"  --{name} " in text for name in names)
    lines = [line.split() for line in listed("cifar-cnn").splitlines()]
    assert ["--data", "cifar10"] in lines
    assert ["--width", "128"] in lines
    assert ["With", "--method", "critic"] in [line[:3] for line in lines]
    found = json.loads(listed("--json"))
    assert list(found) == list(recipes())
    assert all(found[name]["width"] == str(recipe("cdni").width) for name, recipe in RECIPES.items())
