"""The quality of M: probes against full backpropagation, and warnings."""

import dataclasses

import pytest
import torch

from synthgrad import compare
from synthgrad_lab.recurrent.training import RecurrentTraining
from tests.synthgrad_lab.recurrent.trained import after, weights


@pytest.mark.parametrize("recipe", ["add", "copy", "delay"])
@pytest.mark.parametrize("method", ["dni", "bp-lambda"])
def test_a_probe_changes_nothing(tiny, recipe, method):
    s = tiny(recipe, method, steps=15, **({} if recipe == "add" else {"task.first": 2}))
    probed = RecurrentTraining(s)
    for done in range(s.steps):
        probed.step(done)
        assert "boundary 1" in probed.quality() or done < 2
    plain = after(s)
    for part in ("net", "models"):
        assert torch.equal(weights(getattr(plain, part)), weights(getattr(probed, part)))
    assert torch.equal(plain.task.chunk().x, probed.task.chunk().x)


def test_a_probe_compares_with_full_backprop_boundary_by_boundary(tiny):
    s = tiny("copy", cell="gru", **{"task.first": 2})  # 7 steps: boundaries after 3 and 6
    training = after(s)
    found = [q for name, q in training.quality().items() if name != "state"]
    training.task.episode = ()
    chunks = [training.task.chunk() for _ in range(3)]
    loss, state, states = 0.0, None, []
    for chunk in chunks:
        out, state = training.net(chunk.x, state)
        states.append(state)
        loss = loss + (training.task.losses(out, chunk.y).mean(1) * chunk.counts).sum() / s.T
    true = torch.autograd.grad(loss, states[:2])
    assert len(found) == 2
    for measured, state, delta in zip(found, states, true, strict=False):
        synthetic = training.future.interface.synthetic_gradient(state[0].detach())
        assert measured == pytest.approx(dataclasses.asdict(compare(synthetic, delta[0])), rel=1e-4, abs=1e-5)


def test_an_r2_that_stays_below_zero_is_reported_once(tiny, caplog):
    training = after(tiny())
    for error, points, warnings in ((2.0, 2, 0), (0.5, 1, 0), (2.0, 5, 1), (0.5, 1, 0), (2.0, 3, 1)):
        training.future.agreement.errors.copy_(torch.tensor([error, 1.0]))
        for _ in range(points):
            training.point()
        assert caplog.text.count("R² of the synthetic gradient stays below zero") == warnings
        caplog.clear()
