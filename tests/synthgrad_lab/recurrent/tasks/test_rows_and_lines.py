"""``seq-mnist`` and ``line-drawing``: their episodes and errors."""

import math

import pytest
import torch

from tests.synthgrad_lab.recurrent.tasks.chunks import BATCH, joined, steps


def test_rows_are_an_image_from_top_to_bottom_with_its_label(make):
    task = make("seq-mnist", T=9)
    for _ in range(2):
        x, y, counts = joined(steps(task, 28))
        images = task.data.train_x.view(-1, 28, 28)
        for b in range(BATCH):
            (found,) = (images == x[:, b]).all(2).all(1).nonzero()
            label = task.data.train_y[found].item()
            assert y[:, b].tolist() == [[float(k == label) for k in range(10)]] * 28
        assert counts.tolist() == [0] * 27 + [1]


def test_the_error_of_seq_mnist_is_of_the_last_step(make):
    def always_3(x):
        out = torch.zeros(len(x), x.shape[1], 10)
        out[:-1, :, 5], out[-1, :, 3] = 1, 1
        return out

    task = make("seq-mnist")
    for kind, y in (("validation", task.data.validation_y), ("test", task.data.test_y)):
        found = task.evaluate(always_3, kind == "test")
        assert found == {f"{kind}_error": pytest.approx(100 * (y != 3).float().mean().item(), abs=1e-4)}


def test_lines_lead_to_7_targets_with_feedback_on_every_second_step(make):
    x, y, counts = joined(steps(make("line-drawing", T=3, batch=60), 10))
    assert counts.tolist() == [0, 1] * 5
    assert not x[1:].any()
    cues = x[0, :, 0]
    assert sorted({round(cue, 4) for cue in cues.tolist()}) == [round(k / 3 - 1, 4) for k in range(7)]
    angle = (cues + 1) / 2 * math.pi
    for t in range(10):
        torch.testing.assert_close(y[t], (t + 1) / 10 * torch.stack([angle.cos(), angle.sin()], dim=1))


def test_a_network_that_draws_the_lines_has_no_loss_and_one_that_stays_has_the_mean_square(make):
    def solution(x):
        angle = (x[0, :, 0] + 1) / 2 * math.pi
        return torch.arange(1, 11).view(-1, 1, 1) / 10 * torch.stack([angle.cos(), angle.sin()], dim=1)

    assert make("line-drawing").evaluate(solution)["mse"] < 1e-12
    stays = make("line-drawing").evaluate(lambda x: torch.zeros(*x.shape[:2], 2))
    assert stays["mse"] == pytest.approx(sum(t * t for t in range(1, 11)) / 1000)
