"""The stream of bits ``add``: its targets, and the lowest losses."""

import math
from itertools import product

import pytest
import torch

from synthgrad_lab.recurrent.tasks.add import floor
from tests.synthgrad_lab.recurrent.tasks.chunks import joined, logits, steps


@pytest.mark.parametrize(("known", "value"), [((), 0.6616), ((10,), 0.6277), ((6,), 0.5192), ((6, 10), 0.4545)])
def test_bounds_of_add_are_conditional_entropies(known, value):
    def entropy(*names):
        found = {}
        for x6, x10, y in product((0, 1), repeat=3):
            p = 0.5 + 0.5 * x6 - 0.25 * x10
            case = {6: x6, 10: x10, "y": y}
            key = tuple(case[name] for name in names)
            found[key] = found.get(key, 0) + (p if y else 1 - p) / 4
        return -sum(p * math.log(p) for p in found.values() if p)

    assert floor(*known) == pytest.approx(entropy(*known, "y") - entropy(*known), abs=1e-12)
    assert floor(*known) == pytest.approx(value, abs=5e-5)


@pytest.mark.parametrize("T", [4, 13, 500])
def test_targets_of_add_have_their_probability_across_chunks(make, T):
    x, y, _ = joined(steps(make("add", T, batch=100), 500))
    assert torch.equal(x.sum(-1), torch.ones(x.shape[:2]))
    bits, y = x[..., 0], y[10:]
    assert bits.mean().item() == pytest.approx(0.5, abs=0.02)
    for x6, x10 in product((0, 1), repeat=2):
        found = y[(bits[4:-6] == x6) & (bits[:-10] == x10)].mean().item()
        assert found == pytest.approx(0.5 + 0.5 * x6 - 0.25 * x10, abs=0.02 * (found != 1))


def test_the_true_probability_reaches_the_floor_of_add_and_a_constant_does_not(make):
    def solution(x):
        p = torch.full_like(x[..., :1], 0.5)
        p[10:, :, 0] += 0.5 * x[4:-6, :, 0] - 0.25 * x[:-10, :, 0]
        return logits(p)

    for test in (False, True):
        found = make("add").evaluate(solution, test)
        assert found["floor"] == floor(6, 10)
        assert found["cross_entropy"] == pytest.approx(found["floor"], abs=3e-3)
        constant = make("add").evaluate(lambda x: logits(torch.full_like(x[..., :1], 0.625)), test)
        assert constant["cross_entropy"] == pytest.approx(0.6616, abs=3e-3)
