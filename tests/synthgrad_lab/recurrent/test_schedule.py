"""Settings that change during a run: warm-up, rates, lesions."""

import copy

import pytest
import torch

from synthgrad_lab.recurrent.training import RecurrentTraining
from tests.synthgrad_lab.recurrent.trained import after, weights


@pytest.mark.parametrize("method", ["bptt", "dni"])
def test_the_core_warms_up_and_the_read_out_has_a_rate_of_its_own(tiny, method):
    training = RecurrentTraining(
        tiny(
            method=method,
            steps=20,
            **{"optimizer.decay": "none", "optimizer.warm_up": 0.5, "optimizer.read_out_lr": 0.02},
        )
    )
    of = {id(p): name for name, p in training.net.named_parameters()}
    for done, core in ((0, 0.0), (5, 0.5e-2), (10, 1e-2), (19, 1e-2)):
        before = weights(training.net.core)
        training.step(done)
        assert torch.equal(weights(training.net.core), before) == (core == 0)
        rates = {of.get(id(p), "model"): g["lr"] for g in training.optimizer.param_groups for p in g["params"]}
        wanted = {name: 0.02 if name.startswith("read_out") else core for name in of.values()}
        assert rates == pytest.approx({**wanted, **({"model": 0.01} if method == "dni" else {})})


@pytest.mark.parametrize("method", ["dni", "dni-aux", "bp-lambda"])
@pytest.mark.parametrize(("lesion", "felt"), [({"model.use_until": 0.5}, False), ({}, True)])
def test_after_use_until_m_no_longer_moves_the_core(tiny, method, lesion, felt):
    s = tiny(method=method, steps=20, **lesion)
    one, other = after(s, end=10), RecurrentTraining(s)
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    for p in other.models.parameters():
        torch.nn.init.normal_(p)
    one, other = (after(s, 10, training=training) for training in (one, other))
    assert torch.equal(weights(one.net), weights(other.net)) != felt


@pytest.mark.parametrize("method", ["dni", "dni-aux", "bp-lambda"])
def test_after_learn_until_m_stands_still_and_the_core_does_not(tiny, method):
    s = tiny(method=method, steps=20, **{"model.learn_until": 0.5})
    training = RecurrentTraining(s)
    found = [(weights(training.models), weights(training.net))]
    for begin, end in ((0, 10), (10, 20)):
        after(s, begin, end, training)
        found.append((weights(training.models), weights(training.net)))
    (m0, net0), (m1, net1), (m2, net2) = found
    assert not torch.equal(m0, m1)
    assert torch.equal(m1, m2)
    assert not torch.equal(net0, net1)
    assert not torch.equal(net1, net2)
