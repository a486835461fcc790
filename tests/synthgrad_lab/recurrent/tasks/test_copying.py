"""Copy and Repeat Copy: an episode by hand, the curriculum, the measures."""

import pytest
import torch

from synthgrad_lab.recurrent.measures import MEASURES
from tests.synthgrad_lab.recurrent.tasks.chunks import BATCH, joined, steps


@pytest.mark.parametrize(
    ("recipe", "R", "asked"), [("copy", 1, 1.0), ("repeat-copy", 1, 0.1), ("repeat-copy", 3, 0.3)]
)
def test_an_episode_of_copy_by_hand(make, recipe, R, asked):
    task = make(recipe, **{"task.bits": 2})
    x, y, counts = task._episode(2, R, 1, torch.Generator().manual_seed(2))
    a, b = x[1:3, 0, :2].tolist()
    assert a != b
    assert {*a, *b} == {0.0, 1.0}
    said = [[*a, 0], [*b, 0]] * R
    silent = [[0, 0, 0]] * 4
    wanted = [[0, 0, 1, 0], [*a, 0, 0], [*b, 0, 0], [0, 0, 0, asked]]
    assert torch.equal(x[:, 0], torch.tensor([*wanted, *[[0.0] * 4] * (2 * R + 1)]))
    assert torch.equal(y[:, 0], torch.tensor([*silent, *said, [0, 0, 1.0]]))
    assert counts.tolist() == [0] * 4 + [1] * (2 * R + 1)
    assert len(x) == task.length(2, R) == 2 * (R + 1) + 3


def solve(task):
    """Report 20 episodes with a low loss; returns the length of the next one."""
    for _ in range(20):
        task.observe_loss(0.1, 1, False)  # a chunk before the episode's last one
        task.observe_loss(0.1, 1, True)
    task.episode = []
    return len(joined(steps(task, 1))[0])


def test_copy_grows_n_and_repeat_copy_n_and_r_in_turn(make):
    ladder = [5, 7, 9, 12, 15, 19, 23, 28, 33, 39, 45, 52, 59, 67, 75, 84, 93]
    task = make("repeat-copy", T=100, **{"task.first": 1})
    assert [len(task.chunk().x), *(solve(task) for _ in ladder[1:])] == ladder
    task = make("copy", T=100, **{"task.first": 1})
    assert [len(task.chunk().x), *(solve(task) for _ in range(9))] == [2 * n + 3 for n in range(1, 11)]
    assert (task.n, task.r, task.solved) == (10, 1, [9, 1])


def test_copy_grows_at_015_bits_over_20_episodes_and_only_if_it_may(make):
    for task, loss, grown in (
        (make("copy"), 0.1499, 4),
        (make("copy"), 0.1501, 3),
        (make("copy", **{"task.grow": False}), 0, 3),
    ):
        for _ in range(20):
            assert task.n == 3
            task.observe_loss(2 * loss, 2, True)
        assert task.n == grown


def solves(n_most):
    """A network that solves copy and repeat-copy for up to ``n_most`` vectors."""

    def network(x):
        width = x.shape[-1] - 2
        (asked,) = x[:, 0, width + 1].nonzero()[0].tolist()
        out = torch.zeros(*x.shape[:2], width + 1)
        if asked - 1 <= n_most:
            repeats = (len(x) - asked - 2) // (asked - 1)
            out[asked + 1 : -1, :, :width] = x[1:asked, :, :width].repeat(repeats, 1, 1)
            out[-1, :, width] = 1
        return (out - 0.5) * 60

    return network


@pytest.mark.parametrize("recipe", ["copy", "repeat-copy"])
def test_a_network_that_solves_copy_has_no_loss_and_is_accurate(make, recipe):
    task = make(recipe, **{"task.first": 2})
    for _ in range(3):
        solve(task)
    found = task.evaluate(solves(99))
    N, R, next_N = (4, 1, 5) if recipe == "copy" else (3, 2, 3)
    assert found["bits"] < 1e-6
    assert (found["longest"], found["repeats"], found["accurate"]) == (N, R, next_N)
    assert found["episode_length"] == N * (R + 1) + 3
    assert found[MEASURES[recipe].point] == (N if recipe == "copy" else 12)
    assert task.evaluate(solves(2))["accurate"] == 2
    assert make(recipe).evaluate(solves(99))["longest"] == 0  # nothing trained, nothing solved


@pytest.mark.parametrize("ahead", [1, 2, 9])
def test_a_chunk_shows_the_targets_to_come_each_in_its_place(make, ahead):
    task = make("copy", T=3, **{"task.first": 3})  # 9 steps, the last 4 with a target
    task.ahead = ahead
    whole, shown = [], []
    for _ in range(3):
        chunk = task.chunk()
        whole.append(chunk.y)
        shown.append(chunk.coming)
    y = torch.cat(whole)[5:].transpose(0, 1)
    for coming, said in zip(shown, (0, 1, 4), strict=True):
        assert coming.shape == (BATCH, ahead, task.outputs + 1)
        last = max(min(ahead, 4), said)
        assert torch.equal(coming[:, said:last, :-1], y[:, said:last])
        assert coming[..., -1].tolist() == [[float(said <= k < last) for k in range(ahead)]] * BATCH
        assert not coming[:, :said].any()
        assert not coming[:, last:].any()
