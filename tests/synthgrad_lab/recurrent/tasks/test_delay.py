"""The task ``delay``: late targets, and a delay that grows."""

import pytest
import torch

from tests.synthgrad_lab.recurrent.tasks.chunks import BATCH


@pytest.mark.parametrize("T", [1, 3, 20])
def test_targets_of_delay_are_late_across_chunks_and_after_growing(make, T):
    task, seen = make("delay", T), torch.zeros(0, BATCH)
    for delay in range(1, 7):
        assert task.delay == delay
        for _ in range(4):
            chunk = task.chunk()
            seen = torch.cat([seen, chunk.x[..., 0]])
            late = seen[: len(seen) - delay][-T:]
            assert torch.equal(chunk.y[T - len(late) :], late)
        for _ in range(50):
            task.observe_loss(0.0, T, False)


@pytest.mark.parametrize(("loss", "grown"), [(0.1499, 2), (0.1501, 1)])
def test_delay_grows_below_015_bits_over_50_updates(make, loss, grown):
    task = make("delay")
    for count in range(50):
        assert task.delay == 1, count
        task.observe_loss(loss * task.T, task.T, False)
    assert task.delay == grown
    assert task.evaluate(lambda x: torch.zeros_like(x)) == {"longest": grown - 1, "bits": 1.0}


def test_a_delay_that_may_not_grow_is_solved_or_not(make):
    task = make("delay", **{"task.first": 5, "task.grow": False})
    assert task.evaluate(lambda x: torch.zeros_like(x))["longest"] == 0
    for _ in range(50):
        task.observe_loss(0.0, task.T, False)
    assert task.delay == 5
    assert task.evaluate(lambda x: torch.zeros_like(x))["longest"] == 5


def test_delay_ignores_losses_before_the_window(make):
    task = make("delay")
    for loss in [1.0] * 80 + [0.0] * 42:  # 8 of the last 50 cost a bit: 0.16
        task.observe_loss(loss, 1, False)
    assert task.delay == 1
    task.observe_loss(0.0, 1, False)
    assert task.delay == 2
    for _ in range(49):
        task.observe_loss(0.0, 1, False)
    assert task.delay == 2  # the window starts empty again


def test_a_network_that_solves_delay_has_no_loss(make):
    task = make("delay", **{"task.first": 4})
    assert task.evaluate(lambda x: (x.roll(4, 0) - 0.5) * 60)["bits"] < 1e-6
