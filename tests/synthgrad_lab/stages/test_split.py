"""A recipe in stages is cut where asked; a simulation without faults gives the numbers of one process, bit for bit."""

from functools import partial
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from synthgrad.stages import Faults, launch
from synthgrad_lab.feedforward.training import Classification
from synthgrad_lab.running.settings import vary
from synthgrad_lab.stages.settings import Launch
from synthgrad_lab.stages.split import assembled, balanced, build_stage, costs, cuts_for


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("cdni", {}),
        ("dni", {}),
        ("critic", {}),
        ("cdni", {"unlock": "complete"}),
        ("critic", {"optimizer.clip": 0.1, "optimizer.decay": "steps"}),
        ("cdni", {"model.target_every": 3}),
    ],
)
def test_a_simulation_without_faults_gives_the_numbers_of_one_process(tiny, method, changes):
    s = tiny(method, steps=12, **changes)
    whole = Classification(s)
    for step in range(s.steps):
        whole.step(step)
    outcome = launch(partial(build_stage, s, (1, 2, 3)), 4, s.steps, on="simulated")
    trainer = assembled(s, (1, 2, 3), outcome.states)
    for mine, theirs in zip(whole.trainer.parts, trainer.parts, strict=True):
        assert all(torch.equal(a, theirs.state_dict()[name]) for name, a in mine.state_dict().items())
    for interface, state in zip(whole.trainer.interfaces, outcome.states[:-1], strict=True):
        model = {f"gradient_model.{name}": a for name, a in interface.gradient_model.state_dict().items()}
        assert model
        assert all(torch.equal(a, state["above"][name]) for name, a in model.items())


def test_faults_change_the_numbers(tiny):
    s = tiny(steps=12)
    build = partial(build_stage, s, (1, 2, 3))
    calm = launch(build, 4, s.steps, on="simulated")
    late = launch(build, 4, s.steps, on="simulated", faults={3: Faults(lateness=2)})
    above = [outcome.states[2]["above"] for outcome in (calm, late)]
    assert any(not torch.equal(above[0][name], above[1][name]) for name in above[0])


def test_two_stages_of_four_layers_keep_backprop_inside(tiny):
    s = tiny(layers=4, steps=3)
    stage = build_stage(s, (2,), 0)
    assert len(list(stage.part)) == 2
    assert stage.above is not None
    result = stage.step(*stage.data(0), first=True)
    assert result.message.shape == (s.batch, s.width)
    assert result.delta is None


def test_cuts(tiny):
    s = tiny(layers=4)
    assert cuts_for(s, Launch(stages=4)) == cuts_for(s, Launch()) == (1, 2, 3)
    assert cuts_for(s, Launch(stages=2)) == (1,)  # the first layer sees 784 pixels, the others 32 units
    assert cuts_for(s, Launch(at=("h3", "h1"))) == (1, 3)
    with pytest.raises(ValueError, match="no message h4; there are: h1, h2, h3"):
        cuts_for(s, Launch(at=("h4",)))
    with pytest.raises(ValueError, match="4 layers has 2 to 4 stages"):
        cuts_for(s, Launch(stages=5))
    weights = costs(s)
    assert weights[0] == pytest.approx(784 / 32 * weights[1])


@given(st.lists(st.integers(1, 20), min_size=2, max_size=7), st.data())
def test_the_heaviest_stage_is_as_light_as_possible(weights, data):
    from itertools import combinations

    stages = data.draw(st.integers(2, len(weights)))

    def heaviest(cuts):
        return max(sum(weights[a:b]) for a, b in pairwise((0, *cuts, len(weights))))

    found = balanced(weights, stages)
    assert len(found) == stages - 1
    assert heaviest(found) == min(map(heaviest, combinations(range(1, len(weights)), stages - 1)))


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"method": "bprop"}, "method=bprop waits for other stages"),
        ({"unlock": "fused", "mixing.lam": (0.5,)}, "learn without waiting"),
        ({"mixing.warm_up": 5}, "learn without waiting"),
    ],
)
def test_stages_refuse_settings_that_would_make_them_wait(tiny, changes, error):
    with pytest.raises(ValueError, match=error):
        cuts_for(vary(tiny(), changes), Launch())
