"""Messages of varying sizes, and data that are not finite: through a whole chain, and at one stage."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from synthgrad import Interface, Stage, checkpoint
from synthgrad.stages import Policy, StageFailed, launch
from synthgrad.stages.node import TurnResult
from tests.helpers import chains
from tests.helpers.one_node import F64, Bench

LENGTHS = (7, 5, 9, 6)


class PerStep(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(5, 5)

    def forward(self, h, context=None):
        return self.linear(h)


def sequences(step):
    random = torch.Generator().manual_seed(step)
    x = torch.randn(8, LENGTHS[step % 4], 3, generator=random)
    return x, (x.sum(2) > 0).long()


def per_element(out, y):
    return F.cross_entropy(out.flatten(0, 1), y.flatten())


def build(k, data=sequences):
    torch.manual_seed(k)
    part, above = (nn.Linear(3, 5), Interface(PerStep())) if k == 0 else (nn.Linear(5, 2), None)
    learnt = [*part.parameters(), *(above.parameters() if above else [])]
    optimizer = torch.optim.Adam(learnt, lr=3e-3)
    criterion = None if above else per_element
    return Stage(
        part=part, optimizer=optimizer, above=above, criterion=criterion, data=data, conditioned=False
    )  # fmt: skip


# --- sizes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lockstep", [False, True])
def test_sequences_of_any_length_all_arrive(lockstep):
    outcome = launch(build, 2, 40, "simulated", policy=Policy(lockstep=lockstep))
    assert [counters.steps for counters in outcome.counters] == [40, 40]
    assert all(
        counters.refused == counters.missed == counters.lost == counters.nonfinite == 0
        for counters in outcome.counters
    )
    assert outcome.counters[0].learnt == 40


def test_images_of_any_size_through_convolutions():
    def images(step):
        side = (8, 12, 9)[step % 3]
        return torch.randn(4, 1, side, side, generator=torch.Generator().manual_seed(step)), torch.arange(4) % 2

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 1)

        def forward(self, h, context=None):
            return self.conv(h)

    def built(k):
        torch.manual_seed(k)
        model = Model()
        nn.init.zeros_(model.conv.weight)
        nn.init.zeros_(model.conv.bias)
        last = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
        part, above = (nn.Conv2d(1, 2, 3), Interface(model)) if k == 0 else (last, None)
        optimizer = torch.optim.SGD([*part.parameters(), *(above.parameters() if above else [])], lr=0.01)
        criterion = None if above else F.cross_entropy
        return Stage(
            part=part, optimizer=optimizer, above=above, criterion=criterion, data=images, conditioned=False
        )  # fmt: skip

    outcome = launch(built, 2, 30, "simulated")
    assert [(counters.steps, counters.refused) for counters in outcome.counters] == [(30, 0), (30, 0)]


def test_a_gradient_matches_its_own_message_not_the_last_one():
    bench = Bench(0, stage=build(0))
    for _ in range(3):
        bench.turn()
    for step, taught in ((1, 1), (0, 2)):  # earlier messages, of other lengths than the last
        bench.gradient(step, tensors=(torch.ones(8, LENGTHS[step], 5),))
        bench.turn()
        assert (bench.counters.learnt, bench.counters.refused) == (taught, 0)
    bench.gradient(2, tensors=(torch.ones(8, 5, 5),))  # of the length of another message
    bench.turn()
    assert (bench.counters.learnt, bench.counters.refused) == (2, 1)


def test_an_error_of_the_part_on_known_sizes_is_raised():
    def error(out, y):
        raise LookupError("the task's own fault")

    bench = Bench(2)
    bench.message(0)
    bench.turn()
    bench.node.stage.criterion = error
    bench.message(1)
    with pytest.raises(LookupError, match="own fault"):
        bench.turn()


def test_many_unusable_messages_in_a_row_are_an_error_that_names_the_cause():
    bench = Bench(2)
    bench.message(0)
    bench.turn()
    h, y = chains.data(0)
    for step in range(1, 10):
        bench.message(step, tensors=(h[:, :4], y))
        assert bench.turn() is TurnResult.WAITED
    bench.message(10, tensors=(h[:, :4], y))
    with pytest.raises(ValueError, match=r"stage 2 cannot use .*\(8, 4\).*mat1 and mat2.*nor the 9 before it"):
        bench.turn()


def test_another_number_of_dimensions_is_refused_and_logged_once(caplog):
    bench = Bench(2)
    bench.message(0)
    bench.turn()
    h, y = chains.data(0)
    for step in range(1, 10):
        bench.message(step, tensors=(h[None], y))
        bench.turn()
    assert "dtype and number of dimensions must stay" in caplog.text
    assert len(caplog.records) == 1
    bench.message(10, tensors=(h[None], y))
    with pytest.raises(ValueError, match="do the two stages fit each other"):
        bench.turn()


def test_skipped_steps_count_as_missed():
    bench = Bench(2)
    for step in (0, 1, 5, 3, 7):  # 2, 4 and 6 never come in time; 3 comes late, which does not change the count
        bench.message(step)
        bench.turn()
    assert bench.counters.missed == 3 + 1
    bench.heartbeat_below(ended=True)
    bench.turn()
    assert bench.counters.missed == 3 + 1 + 92
    again = Bench(2)
    again.node.load_state_dict(bench.node.state_dict())
    again.heartbeat_below(ended=True)
    again.turn()
    assert again.counters.missed == bench.counters.missed


# --- not finite --------------------------------------------------------------------------------------------


def poisoned(step, bad=(13, 14, 30)):
    x, y = sequences(step)
    if step in bad:
        x[3, 1, 2] = math.nan if step % 2 else math.inf
    return x, y


@pytest.mark.parametrize("lockstep", [False, True])
def test_a_sample_that_is_not_finite_spoils_nothing(equal, lockstep):
    policy = Policy(lockstep=lockstep)
    outcome = launch(partial(build, data=poisoned), 2, 40, "simulated", policy=policy)
    for state in outcome.states:
        assert all(p.isfinite().all() for p in state["part"].values())
        moments = [t for s in state["optimizer"]["state"].values() for t in s.values()]
        assert all(t.isfinite().all() for t in moments)
    assert [counters.nonfinite for counters in outcome.counters] == [3, 0]
    assert [counters.steps for counters in outcome.counters] == [40, 37]
    assert [counters.missed for counters in outcome.counters] == [0, 3]
    assert outcome.counters[0].learnt == 37


def test_data_that_are_never_finite_are_an_error():
    with pytest.raises(ArithmeticError, match=r"the data is not finite at step 9"):
        launch(partial(build, data=partial(poisoned, bad=range(99))), 2, 40, "simulated")


def spoil(k):
    stage = chains.build(k)
    if k == 1:
        stage.schedule = partial(_spoil, stage)
    return stage


def _spoil(stage, step):
    if step >= 7:
        with torch.no_grad():
            next(iter(stage.part.parameters())).fill_(math.nan)


def test_weights_that_are_not_finite_are_never_saved_over_good_ones(tmp_path):
    with pytest.raises(StageFailed, match=r"(part.*weight is not finite after step \d+; it is not saved|output)"):
        launch(
            spoil, 3, 100, folder=tmp_path, policy=Policy(checkpoint_every=5, max_restarts=0, silence_timeout=60.0)
        )
    state = checkpoint.load(tmp_path / "stage-1")
    assert state["counters"]["clock"] == 5
    assert all(p.isfinite().all() for p in state["stage"]["part"].values())
    with pytest.raises(ArithmeticError, match="is not finite"):
        launch(spoil, 3, 100, "simulated", policy=Policy(checkpoint_every=5))


def test_a_state_of_something_else_is_refused():
    bench = Bench(1)
    with pytest.raises(ValueError, match="no stage of a launch has written it"):
        bench.node.load_state_dict({"weights": torch.ones(3)})
    with pytest.raises(ValueError, match="it is of another stage"):
        bench.node.load_state_dict({**bench.node.state_dict(), "stage": {}})


def test_a_dropped_message_is_reported_in_its_place(equal):
    """The stage above learns that the step has no message, and does not wait for it."""
    bench = Bench(0)
    bench.node.stage.data = lambda step: (torch.full((8, 5), math.nan if step == 1 else 1.0, dtype=F64), None)
    bench.node.stage.conditioned = False
    bench.node.stage.above.gradient_model = PerStep().double()
    for _ in range(3):
        bench.turn()
    sent = [(packet.kind.name, packet.step) for packet in iter(bench.up_out.get, None)]
    assert sent == [("MESSAGE", 0), ("HEARTBEAT", 1), ("MESSAGE", 2)]
