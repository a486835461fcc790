"""Settings: what they refuse, what they count, how the command line makes them."""

import json
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthgrad_lab.cli import main
from synthgrad_lab.commands.run import FIXED, settings_of
from synthgrad_lab.feedforward.recipes import RECIPES, paper_preset
from synthgrad_lab.feedforward.settings import INTERFACED, METHODS, TRAINING, Settings
from synthgrad_lab.feedforward.trainer import Trainer
from synthgrad_lab.recurrent.recipes import RECIPES as SEQUENCES
from synthgrad_lab.running.settings import BadSetting, vary, words


def asked(recipe, *arguments):
    """What ``synthgrad run`` makes of its words."""
    return settings_of(recipe, words(arguments))


# --- bounds and conflicts ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("steps", 0), ("width", 0), ("model_hidden", 0), ("input_hidden", 0), ("model_kernel", 0)],
        *[("eval_every", 0), ("checkpoint_every", 0), ("threads", 0), ("layers", 1), ("batch", 1)],
        *[("lr", -1e-3), ("model_lr", -1.0), ("model_depth", -1), ("seed", -1), ("anchor", -0.5)],
        *[("warmup", -1), ("target_every", -1), ("unit_factor", 0.0), ("clip", 0.0), ("epochs", 0.0)],
        *[("epochs", -1.0), ("model_beta1", 1.0), ("model_beta2", -0.1), ("p_update", 0.0), ("p_update", 1.1)],
    ],
)
def test_numbers_out_of_range(name, value):
    with pytest.raises(ValueError, match=f"{name}={value}: it must be"):
        Settings(**{name: value})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["lr", "steps", "epochs", "clip", "p_update", "anchor", "model_beta1"])
def test_what_is_not_a_number_is_in_no_range(name, value):
    with pytest.raises(ValueError, match=f"{name}={value}"):
        Settings(**{name: value})


@pytest.mark.parametrize("name", ["lam", "lam_end"])
@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan"), (0.5, 0.5), (0.1, 0.2, 0.3, 0.4), (0.0, 2.0, 0.0)])
def test_shares_out_of_range(name, value):
    with pytest.raises(ValueError, match=f"{name}=.*from 0 to 1, or 3 with commas"):
        Settings(unlock="fused", **{name: value})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mixing.lam": 0.5}, "unlock=fused"),
        ({"mixing.lam_end": (0.5,)}, "unlock=fused"),
        ({"unlock": "complete", "mixing.lam": (0.1, 0.0, 0.0)}, "unlock=fused"),
        *[({"method": m, "unlock": "complete"}, "wants interfaces") for m in METHODS if m not in INTERFACED],
        ({"method": "bprop", "unlock": "fused"}, "wants interfaces"),
        ({"unlock": "complete", "mixing.warm_up": 10}, "unlock=complete and p_update below 1 do not"),
        ({"unlock": "fused", "p_update": 0.5}, "p_update below 1"),
        ({"method": "stale", "p_update": 0.5}, "p_update below 1"),
    ],
)
def test_settings_that_contradict_each_other(changes, message):
    with pytest.raises(ValueError, match=message):
        Settings(**changes)


# --- epochs, and the way into a record and back ------------------------------------------------------------


@given(st.sampled_from(sorted(TRAINING)), st.integers(2, 60_000), st.floats(1e-3, 50))
def test_epochs_are_counted_in_whole_batches(data, batch, epochs):
    steps = Settings(data=data, batch=batch, epochs=epochs).steps
    assert isinstance(steps, int)
    assert steps >= 1
    assert abs(steps - epochs * (TRAINING[data] // batch)) <= (1 if steps == 1 else 0.5)


shares = st.lists(st.floats(0, 1), min_size=3, max_size=3) | st.floats(0, 1)


@given(st.sampled_from(sorted(RECIPES)), st.sampled_from(METHODS), shares, st.none() | shares)
def test_a_record_gives_the_settings_back(recipe, method, lam, lam_end):
    s = RECIPES[recipe](method)
    if method in INTERFACED:
        s = vary(s, {"unlock": "fused", "mixing.lam": lam, "mixing.lam_end": lam_end})
        assert isinstance(s.mixing.lam, tuple)
        assert len(s.mixing.lam) == (3 if isinstance(lam, list) else 1)
    for each in (s, paper_preset(s)):
        assert Settings(**json.loads(json.dumps(asdict(each)))) == each


# --- the command line --------------------------------------------------------------------------------------


def test_epochs_are_replaced_by_steps_and_the_other_way_round():
    assert asked("cifar-cnn").epochs is not None
    fewer = asked("cifar-cnn", "steps=7")
    assert (fewer.steps, fewer.epochs) == (7, None)
    assert asked("mnist-fcn", "epochs=2").steps == 2 * (55_000 // 256)
    assert asked("mnist-fcn", "epochs=2", "data=cifar10").steps == 2 * (45_000 // 256)
    with pytest.raises(BadSetting, match="steps and epochs"):
        asked("mnist-fcn", "steps=7", "epochs=2")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_papers_preset(recipe, method):
    s = asked(recipe, "preset=paper", f"method={method}")
    assert (s.preset, s.method, s.recipe) == ("paper", method, recipe)
    assert (s.optimizer.lr, s.steps, s.batch, s.optimizer.decay, s.epochs) == (3e-5, 500_000, 256, "steps", None)
    assert s.width == RECIPES[recipe](method).width
    assert asked(recipe, "preset=paper", f"method={method}", "steps=9", "lr=0.5") == vary(
        s, {"steps": 9, "optimizer.lr": 0.5}
    )
    assert asked(recipe, "preset=paper", "epochs=1", "batch=100").steps == TRAINING[s.data] // 100


def test_the_papers_rates_fall_to_a_tenth_twice():
    trainer = Trainer(asked("mnist-fcn", "preset=paper", "width=4", "model_hidden=4"))
    rates = []
    for step in (0, 299_999, 300_000, 399_999, 400_000, 499_999):
        trainer.schedule(step)
        rates.append([g["lr"] for o in trainer.optimizers for g in o.param_groups])
    assert [r[0] for r in rates] == pytest.approx([3e-5, 3e-5, 3e-6, 3e-6, 3e-7, 3e-7])
    assert all(len(set(r)) == 1 for r in rates)


def test_a_share_per_interface():
    s = asked("mnist-fcn", "unlock=fused", "lam=0.5,0.2,0", "lam_end=1")
    assert (s.mixing.lam, s.mixing.lam_end) == ((0.5, 0.2, 0.0), (1.0,))
    assert asked("mnist-fcn", "lam_end=none").lam_end is None
    with pytest.raises(BadSetting, match="lam=half"):
        asked("mnist-fcn", "lam=0.5,half", "unlock=fused")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mnist-fcn", "steps=3", "epochs=1"], "steps and epochs"),
        (["mnist-fcn", "net=cnn"], "the recipe is the first word"),
        (["mnist-fcn", "preset=papre"], "did you mean 'paper'"),
        (["mnist-fcn", "lam=0.5,0.2", "unlock=fused"], "one per interface"),
        (["cifar-cnn", "method=bprop", "unlock=complete"], "wants interfaces"),
    ],
)
def test_mistakes_are_told_in_a_line(capsys, arguments, message):
    assert main(["run", *arguments]) in (1, 2)
    out, told = capsys.readouterr()
    assert message in told
    assert len(told.splitlines()) == 1
    assert out == ""


def test_every_recipe_and_setting_is_listed(capsys):
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    parts = [text.index(f"{name}: ") for name in RECIPES]
    assert parts == sorted(parts)
    assert all(f"  {name}=" in text[: parts[0]] for name in asdict(Settings()) if name not in FIXED)
    assert "data=cifar10 width=128" in text[parts[-1] :]
    assert "with method=critic" in text[parts[-1] :]
    assert main(["list", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert list(told) == [*RECIPES, *SEQUENCES, "clocks"]
    assert all(told[name]["width"] == str(recipe("cdni").width) for name, recipe in RECIPES.items())
