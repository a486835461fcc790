"""A stage between its channels: how it answers packets, when it waits, and how it resumes after a restart."""

import copy
import math

import pytest
import torch

from synthgrad.stages.channels import PacketKind
from synthgrad.stages.node import TurnResult
from tests.helpers import chains
from tests.helpers.one_node import F64, STEPS, Bench, primed, steps

# --- a step ------------------------------------------------------------------------------------------------


def test_a_message_becomes_a_message_and_a_gradient(equal):
    bench, twin = Bench(), primed(chains.build(1))
    for step in (0, 1, 5):
        bench.message(step, generation=3)
        assert bench.turn() is TurnResult.STEPPED
        h, y = chains.data(step)
        done = twin.step(h.tanh(), y)
        (up,), (down,) = bench.sent_up(), bench.sent_down()
        assert equal(up.tensors, [done.message, y])
        assert equal(down.tensors, [done.delta])
        assert (done.delta != 0).all()
        assert (up.kind, up.stage, up.generation, up.step) == (PacketKind.MESSAGE, 1, 1, step)
        assert (down.kind, down.stage, down.generation, down.step) == (PacketKind.GRADIENT, 1, 1, step)
        assert (down.echo, down.ack) == (3, step)
    assert (bench.counters.steps, bench.counters.clock) == (3, 6)


def test_a_gradient_teaches_the_model_its_own_message(equal):
    bench, twin = Bench(), primed(chains.build(1))
    done = []
    for step in range(3):
        bench.message(step)
        bench.turn()
        done.append(twin.step(chains.data(step)[0].tanh(), chains.data(step)[1]))
    bench.gradient(1)
    bench.turn()
    twin.learn(done[1].message, chains.data(1)[1], torch.full((8, 5), 0.2, dtype=F64))
    assert equal(bench.model(), list(twin.above.gradient_model.parameters()))
    assert (bench.counters.learnt, bench.counters.lost, bench.counters.staleness) == (1, 0, 1.0)
    assert bench.counters.regression_loss == twin.regression_loss


def test_of_several_gradients_the_newest_teaches(equal):
    bench, late = Bench(), Bench()
    for each in (bench, late):
        for step in range(3):
            each.message(step)
            each.turn()
    for step in range(3):
        bench.gradient(step)
    late.gradient(2)
    bench.turn()
    late.turn()
    assert equal(bench.model(), late.model())
    assert (bench.counters.learnt, bench.counters.lost) == (1, 2)
    assert bench.counters.staleness == 0


@pytest.mark.parametrize(("limit", "learnt"), [(None, 1), (3, 1), (2, 0)])
def test_gradients_that_are_too_stale_teach_nothing(limit, learnt):
    bench = Bench(max_staleness=limit)
    for step in range(4):
        bench.message(step)
        bench.turn()
    bench.gradient(0)
    bench.turn()
    assert (bench.counters.learnt, bench.counters.lost) == (learnt, 1 - learnt)
    assert math.isnan(bench.counters.staleness) if not learnt else bench.counters.staleness == 3


def test_the_oldest_message_without_a_gradient_is_forgotten():
    bench = Bench(in_flight=2)
    for step in range(4):
        bench.message(step)
        bench.turn()
    for step, (learnt, lost) in (
        (1, (0, 1)),
        (2, (1, 1)),
        (3, (2, 1)),
        (3, (2, 2)),
    ):  # the last is answered already
        bench.gradient(step)
        bench.turn()
        assert (bench.counters.learnt, bench.counters.lost) == (learnt, lost)


def test_the_schedule_gets_the_step_and_the_task_loss_is_counted():
    seen = []
    bench = Bench(2, stage=chains.build(2, seen=lambda k, step: seen.append((k, step))))
    for step in (0, 7):
        bench.message(step)
        bench.turn()
    assert seen == [(2, 0), (2, 7)]
    assert 0.5 < bench.counters.loss < 2


def test_one_message_that_is_not_finite_teaches_nothing_many_in_a_row_are_an_error():
    bench = Bench(2)
    bad = torch.full((8, 5), math.inf, dtype=F64), chains.data(0)[1]
    before = chains.parameters([bench.node.stage])
    for step in range(9):
        bench.message(step, tensors=bad)
        assert bench.turn() is TurnResult.STEPPED
    assert all(map(torch.equal, chains.parameters([bench.node.stage]), before))
    assert not bench.sent_down()
    assert (bench.counters.nonfinite, bench.counters.clock) == (9, 9)
    assert math.isnan(bench.counters.loss)  # none yet
    bench.message(9)
    bench.turn()
    assert math.isfinite(bench.counters.loss)
    for step in range(10, 19):
        bench.message(step, tensors=bad)
        bench.turn()
    bench.message(19, tensors=bad)
    with pytest.raises(
        ArithmeticError, match=r"the message from below is not finite at step 19, .*; look at the data"
    ):
        bench.turn()


def test_a_loss_that_stays_not_finite_is_an_error():
    stage = chains.build(2)
    stage.criterion = lambda out, y: out.sum() / 0
    bench = Bench(2, stage=stage)
    with pytest.raises(ArithmeticError, match=r"the loss \(-?inf\) is not finite at step 9, .*try a lower rate"):
        [(bench.message(step), bench.turn()) for step in range(10)]
    assert bench.counters.steps == 10


def test_the_first_stage_needs_data():
    stage = chains.build(0)
    stage.data = None
    with pytest.raises(ValueError, match="the first stage needs data"):
        Bench(0, stage=stage)


@pytest.mark.parametrize(("k", "of", "needs"), [(1, 2, "an interface above it"), (2, 4, "a criterion")])
def test_a_stage_of_a_chain_of_another_length_is_refused(k, of, needs):
    with pytest.raises(ValueError, match=f"stage {k} needs {needs}"):
        Bench(k, stage=chains.build(k, stages=of))


# --- complete unlock ---------------------------------------------------------------------------------------


def test_a_stage_on_synthetic_inputs_does_not_wait(equal):
    bench = Bench(1, complete=True)
    assert [bench.turn() for _ in range(3)] == [TurnResult.STEPPED] * 3
    for step, packet in enumerate(bench.sent_down()):
        assert packet.step == step
        assert equal([packet.tensors[1]], [bench.node.stage.below.input_model(chains.data(step)[0])])
    assert steps(bench.sent_up()) == [0, 1, 2]


def test_messages_teach_its_input_model(equal):
    bench, twin = Bench(1, complete=True), primed(chains.build(1, complete=True))
    for step in (3, 4):
        bench.message(step)  # the newest of several teaches
    bench.turn()
    twin.learn_input(chains.data(4)[0], chains.data(4)[0].tanh())
    twin.step(twin.synthetic_input(chains.data(0)[0]), chains.data(0)[1])
    assert equal(chains.parameters([bench.node.stage]), chains.parameters([twin]))


def test_a_gradient_that_carries_its_message_needs_no_kept_one(equal):
    """A stage above on synthetic inputs sends them, also for messages of an earlier process of this stage."""
    bench, twin = Bench(0, generation=4), primed(chains.build(0))
    bench.turn()
    h, delta = torch.randn(2, 8, 5, dtype=F64)
    bench.gradient(60, echo=2, tensors=(delta, h))
    bench.turn()
    twin.step(*chains.data(0), first=True)
    twin.learn(h, chains.data(60)[1], delta)
    assert bench.counters.learnt == 1
    assert equal(bench.model(), list(twin.above.gradient_model.parameters()))


# --- restarts ----------------------------------------------------------------------------------------------


def test_messages_of_an_earlier_process_are_void():
    bench = Bench()
    bench.message(5, generation=2)
    bench.message(6, generation=1)
    bench.message(3, generation=2)
    assert [bench.turn() for _ in range(3)] == [TurnResult.STEPPED, TurnResult.STEPPED, TurnResult.WAITED]
    assert steps(bench.sent_down()) == [5, 3]
    assert bench.counters.refused == 0


def test_gradients_of_an_earlier_process_are_void():
    bench = Bench()
    for step in range(2):
        bench.message(step)
        bench.turn()
    bench.heartbeat_above(generation=2)
    bench.gradient(1, generation=1)
    bench.turn()
    assert bench.counters.learnt == 0
    bench.gradient(1, generation=2)
    bench.turn()
    assert bench.counters.learnt == 1


def test_gradients_for_an_earlier_process_of_this_stage_teach_nothing():
    bench = Bench(generation=2)
    bench.message(0)
    bench.turn()
    bench.gradient(0, echo=1)
    bench.turn()
    assert (bench.counters.learnt, bench.counters.lost) == (0, 1)
    bench.gradient(0, echo=2)
    bench.turn()
    assert (bench.counters.learnt, bench.counters.lost) == (1, 1)


def test_a_stage_resumes_from_its_state(equal):
    def fed(bench, first, last):
        for step in range(first, last):
            bench.message(step)
            bench.turn()
            bench.gradient(step, echo=bench.node.generation)
        bench.turn()

    bench, twin = Bench(), Bench(generation=2)
    fed(bench, 0, 4)
    state = copy.deepcopy(bench.node.state_dict())
    fed(bench, 4, 8)
    twin.node.load_state_dict(state)
    assert twin.node.counters.clock == 4
    fed(twin, 4, 8)
    assert equal(chains.parameters([twin.node.stage]), chains.parameters([bench.node.stage]))
    assert vars(twin.node.counters) == vars(bench.counters)


def test_the_random_numbers_resume_too():
    bench = Bench()
    state = copy.deepcopy(bench.node.state_dict())
    wanted = torch.rand(3)
    bench.node.load_state_dict(state)
    assert torch.equal(torch.rand(3), wanted)


def test_a_stage_that_had_ended_is_ended_after_a_restart():
    bench = Bench(2)
    bench.message(STEPS - 1)
    assert bench.turn() is TurnResult.STEPPED
    twin = Bench(2)
    twin.node.load_state_dict(bench.node.state_dict())
    assert twin.turn() is TurnResult.ENDED


# --- replay ------------------------------------------------------------------------------------------------


def test_while_the_stage_below_is_down_a_stage_trains_on_past_messages(equal):
    bench, twin = Bench(1, replay=2), primed(chains.build(1))
    for step in range(3):
        bench.message(step)
        bench.turn()
        twin.step(chains.data(step)[0].tanh(), chains.data(step)[1])
    assert bench.turn() is TurnResult.WAITED  # it is alive
    bench.sent_up()
    bench.sent_down()
    bench.down_out.cut = True
    assert [bench.turn() for _ in range(3)] == [TurnResult.STEPPED] * 3
    for step in (2, 1, 2):
        twin.step(chains.data(step)[0].tanh(), chains.data(step)[1])
    assert equal(chains.parameters([bench.node.stage]), chains.parameters([twin]))
    assert (bench.counters.replayed, bench.counters.steps, bench.counters.clock) == (3, 6, 3)
    bench.down_out.cut = False
    assert not bench.sent_up()
    assert not bench.sent_down()
    assert bench.turn() is TurnResult.WAITED
    bench.message(3)
    bench.turn()
    assert steps(bench.sent_up()) == [3]


@pytest.mark.parametrize("kind", ["no replay", "no past", "ended"])
def test_without_past_messages_to_replay_it_waits(kind):
    bench = Bench(1, replay=0 if kind == "no replay" else 4)
    if kind == "no past":
        bench.heartbeat_below()
    else:
        bench.message(0)
        bench.turn()
    if kind == "ended":
        bench.heartbeat_below(ended=True)
    bench.down_out.cut = True
    assert bench.turn() is (TurnResult.ENDED if kind == "ended" else TurnResult.WAITED)
    assert bench.counters.replayed == 0


# --- lockstep ----------------------------------------------------------------------------------------------


def test_in_lockstep_a_stage_waits_for_the_gradient():
    bench = Bench(0, lockstep=True)
    assert [bench.turn() for _ in range(3)] == [TurnResult.STEPPED] + [TurnResult.WAITED] * 2
    bench.gradient(0)
    assert [bench.turn() for _ in range(2)] == [TurnResult.STEPPED, TurnResult.WAITED]
    bench.heartbeat_above(echo=1, ack=0)
    assert bench.turn() is TurnResult.WAITED
    assert bench.counters.learnt == 1


def test_in_lockstep_a_first_heartbeat_is_no_answer():
    bench = Bench(0, lockstep=True)
    bench.turn()
    bench.heartbeat_above()
    assert bench.turn() is TurnResult.WAITED


@pytest.mark.parametrize("seen", [True, False], ids=["and was seen to be", "unseen"])
def test_lockstep_continues_when_the_stage_above_died_with_the_message(seen):
    bench = Bench(0, lockstep=True)
    bench.heartbeat_above()
    bench.turn()
    assert bench.turn() is TurnResult.WAITED
    if seen:
        bench.up_out.cut = True
        assert bench.turn() is TurnResult.STEPPED
        bench.up_out.cut = False
    bench.heartbeat_above(generation=2)
    step = bench.counters.clock - seen
    for expected in range(step, step + 3):
        while bench.turn() is TurnResult.STEPPED:
            pass
        assert steps(bench.sent_up())[-1] == bench.counters.clock - 1 >= expected
        bench.gradient(bench.counters.clock - 1, generation=2)
    assert bench.counters.learnt >= 2


def test_lockstep_does_not_wait_for_a_stage_that_has_ended():
    bench = Bench(0, lockstep=True)
    bench.turn()
    bench.heartbeat_above(ended=True)
    assert bench.turn() is TurnResult.STEPPED


def test_in_lockstep_a_stage_waits_for_the_last_gradient():
    bench = Bench(1, lockstep=True)
    bench.message(STEPS - 1)
    bench.turn()
    assert bench.turn() is TurnResult.ENDED
    assert not bench.node.done
    bench.gradient(STEPS - 1)
    bench.turn()
    assert bench.node.done
    assert bench.counters.learnt == 1


# --- inlets to watch ---------------------------------------------------------------------------------------


def test_a_stage_watches_the_inlets_where_a_packet_would_help():
    bench = Bench(1, queue=1)
    bench.heartbeat_above()
    both = [bench.up_in, bench.down_in]
    assert bench.node.inlets_to_watch() == both
    for step in range(2):
        bench.message(step)
        bench.turn()
    assert bench.node.inlets_to_watch() == [bench.down_in]  # there is no room above: a message could not be used
    bench.up_out.cut = True
    assert bench.node.inlets_to_watch() == both
    bench.up_out.cut = False
    bench.heartbeat_above(generation=2)
    bench.turn()
    assert bench.node.inlets_to_watch() == both
    bench.heartbeat_below(ended=True)
    bench.turn()
    assert bench.node.inlets_to_watch() == [bench.down_in]
    first, last = Bench(0), Bench(2)
    assert first.node.inlets_to_watch() == [first.down_in]
    assert last.node.inlets_to_watch() == [last.up_in]
    impatient = Bench(1, complete=True, queue=1)
    for _ in range(4):
        impatient.turn()
    assert impatient.node.inlets_to_watch() == [impatient.up_in, impatient.down_in]
