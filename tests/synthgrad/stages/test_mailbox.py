"""A mailbox: packets that are refused, messages that find no room, and heartbeats; packet by packet."""

import pytest
import torch

from synthgrad.stages.channels import PacketKind
from synthgrad.stages.node import TurnResult
from tests.helpers import chains
from tests.helpers.one_node import F64, STEPS, Bench, steps

# --- refused packets ---------------------------------------------------------------------------------------

H, Y = chains.data(0)
HEARTBEAT = {"kind": PacketKind.HEARTBEAT, "tensors": ()}
WRONG = {
    "sender": {"stage": 0},
    "itself": {"stage": 2},
    "far sender": {"stage": 60_000},
    "kind": {"kind": PacketKind.GRADIENT},
    "negative step": {"step": -1},
    "step after the last": {"step": STEPS},
    "huge step": {"step": 2**62},
    "no tensors": {"tensors": ()},
    "width": {"tensors": (H[:, :4], Y)},
    "dimensions": {"tensors": (H[None], Y)},
    "scalar": {"tensors": (H.sum(), Y)},
    "dtype": {"tensors": (H.float(), Y)},
    "whole numbers": {"tensors": (H.long(), Y)},
    "without labels": {"tensors": (H,)},
    "too few labels": {"tensors": (H, Y[:5])},
    "labels of another form": {"tensors": (H, Y[:, None])},
    "labels of another dtype": {"tensors": (H, Y.double())},
    "heartbeat with tensors": {**HEARTBEAT, "tensors": (H,)},
    "heartbeat of another stage": {**HEARTBEAT, "stage": 0},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_wrong_message_is_refused_and_counted(wrong):
    bench = Bench(2)
    bench.message(0)
    assert bench.turn() is TurnResult.STEPPED
    before = chains.parameters([bench.node.stage])
    bench.message(1, **wrong)
    assert bench.turn() is TurnResult.WAITED
    assert bench.counters.refused == 1
    assert all(map(torch.equal, chains.parameters([bench.node.stage]), before))
    bench.message(2)
    assert bench.turn() is TurnResult.STEPPED
    assert (bench.counters.refused, bench.counters.clock) == (1, 3)


DELTA = torch.ones(8, 5, dtype=F64)
WRONG_GRADIENTS = {
    **{name: WRONG[name] for name in ("far sender", "negative step", "step after the last", "huge step")},
    "itself": {"stage": 0},
    "sender": {"stage": 2},
    "kind": {"kind": PacketKind.MESSAGE},
    "no tensors": {"tensors": ()},
    "width": {"tensors": (DELTA[:, :4],)},
    "width of both": {"tensors": (DELTA[:, :4], DELTA[:, :4])},
    "scalar": {"tensors": (DELTA.sum(),)},
    "dtype": {"tensors": (DELTA.float(),)},
    "whole numbers": {"tensors": (DELTA.long(),)},
    "a message of whole numbers": {"tensors": (DELTA, DELTA.long())},
    "a message of another form": {"tensors": (DELTA, DELTA[:, None])},
    "heartbeat with tensors": {**HEARTBEAT, "tensors": (DELTA,)},
}


@pytest.mark.parametrize("first", [True, False], ids=["the first that comes", "later"])
@pytest.mark.parametrize("wrong", WRONG_GRADIENTS.values(), ids=WRONG_GRADIENTS)
def test_a_wrong_gradient_is_refused_and_counted(wrong, first):
    bench = Bench(0)
    for _ in range(3):
        bench.turn()
    if not first:
        bench.gradient(0)
        bench.turn()
    before = bench.model()
    bench.gradient(1, **wrong)
    bench.turn()
    assert all(map(torch.equal, bench.model(), before))
    assert bench.counters.refused == 1
    bench.gradient(2)
    bench.turn()
    assert bench.counters.learnt == 2 - first


@pytest.mark.parametrize(
    "tensors",
    [(DELTA[:5],), (DELTA[:5], DELTA[:5]), (DELTA, DELTA[:5]), (DELTA[:5], DELTA)],
    ids=["its message's", "of both", "of the message", "of the gradient"],
)
def test_a_gradient_of_another_batch_teaches_nothing(tensors):
    bench = Bench(0)
    bench.turn()
    bench.gradient(0, tensors=tensors)
    bench.turn()
    assert (bench.counters.learnt, bench.counters.lost) == (0, 1)


def test_a_gradient_before_the_first_message_teaches_nothing():
    bench = Bench(0)
    bench.gradient(5)
    bench.gradient(6, tensors=(DELTA[:, :3], DELTA[:, :3]))
    bench.turn()
    assert bench.counters.learnt == 0
    bench.gradient(0)
    bench.turn()
    assert bench.counters.learnt == 1


@pytest.mark.parametrize("step", [-(2**63), -1, 2**62])
def test_a_heartbeat_may_have_any_step(step):
    bench = Bench(1)
    for number in (0, 1):
        bench.heartbeat_below(step=step)
        bench.heartbeat_above(step=step, ack=step, echo=1)
        bench.message(number)
        assert bench.turn() is TurnResult.STEPPED
    assert bench.counters.refused == 0


def test_a_smaller_last_batch_is_accepted():
    bench = Bench(1)
    for step, count in ((0, 8), (1, 3), (2, 8)):
        h, y = chains.data(step)
        bench.message(step, tensors=(h[:count], y[:count]))
        assert bench.turn() is TurnResult.STEPPED
        bench.gradient(step, tensors=(DELTA[:count],))
    bench.turn()
    assert (bench.counters.refused, bench.counters.lost, bench.counters.learnt) == (0, 0, 3)


# --- room and waiting --------------------------------------------------------------------------------------


def test_a_stage_waits_while_the_one_above_has_no_room():
    bench = Bench(0, queue=3)
    assert [bench.turn() for _ in range(6)] == [TurnResult.STEPPED] * 4 + [
        TurnResult.WAITED
    ] * 2  # three sent, one queued
    assert steps(bench.sent_up()) == [0, 1, 2]
    assert bench.counters.queue == 4
    bench.heartbeat_above(echo=1, ack=1)  # it has received two
    assert [bench.turn() for _ in range(3)] == [TurnResult.STEPPED] * 2 + [TurnResult.WAITED]
    assert steps(bench.sent_up()) == [3, 4]
    assert bench.counters.dropped == 0


def test_the_first_heartbeat_from_above_makes_no_room():
    """It has received nothing, and no earlier process of it has lost anything."""
    bench = Bench(0, queue=3)
    for _ in range(6):
        bench.turn()
    bench.heartbeat_above(echo=1, ack=-1)
    assert bench.turn() is TurnResult.WAITED
    assert steps(bench.sent_up()) == [0, 1, 2]


def test_a_restart_of_the_stage_above_makes_room():
    bench = Bench(0, queue=3)
    for _ in range(6):
        bench.turn()
    bench.heartbeat_above(generation=2)
    assert [bench.turn() for _ in range(4)] == [TurnResult.STEPPED] * 3 + [TurnResult.WAITED]


def test_an_impatient_stage_drops_its_oldest_message():
    stage = chains.build(0)
    stage.patient = False
    bench = Bench(0, stage=stage, queue=2)
    assert [bench.turn() for _ in range(7)] == [TurnResult.STEPPED] * 7
    assert steps(bench.sent_up()) == [0, 1]
    assert bench.counters.dropped == 3
    bench.heartbeat_above(echo=1, ack=1)
    bench.turn()
    assert steps(bench.sent_up()) == [5, 6]


@pytest.mark.parametrize("ended", [False, True])
def test_a_stage_does_not_wait_for_a_dead_or_ended_stage_above(ended):
    """The stage above may have ended while this one was set back to an older checkpoint."""
    bench = Bench(0, queue=2)
    bench.heartbeat_above(echo=1, ended=ended)
    for _ in range(3):
        bench.turn()
    bench.up_out.cut = not ended
    assert [bench.turn() for _ in range(5)] == [TurnResult.STEPPED] * 5
    assert bench.counters.dropped == 4
    bench.heartbeat_above(generation=2)  # it is back
    bench.up_out.cut = False
    assert [bench.turn() for _ in range(4)] == [TurnResult.STEPPED] + [TurnResult.WAITED] * 3
    assert steps(bench.sent_up()) == [0, 1, 6, 7]


def test_a_lost_message_does_not_take_room_for_ever():
    """After a broken connection, say. A heartbeat reports what was sent; what has not come by then is lost."""
    bench, above = Bench(0, queue=2), Bench(1)
    bench.turn()
    bench.turn()
    bench.up_out.clear()
    for _ in range(4):
        bench.turn()
        while packet := bench.up_out.get():
            above.up_in.put(packet)
        above.turn()
        while packet := above.down_out.get():
            bench.down_in.put(packet)
    assert bench.counters.steps >= 4
    assert bench.counters.dropped == 0
    assert above.counters.clock >= 3


def test_a_gradient_is_kept_until_it_can_be_sent():
    bench = Bench(1)
    bench.down_out.cut = True  # no room for a moment
    bench.message(0)
    bench.turn()
    bench.down_out.cut = False
    bench.turn()
    assert steps(bench.sent_down()) == [0]
    bench.turn()
    assert not bench.sent_down()


def test_no_heartbeat_overtakes_the_gradient_that_it_acknowledges():
    bench = Bench(1)
    bench.message(0)
    put = bench.down_out.put
    bench.down_out.put = lambda packet: not packet.tensors and put(packet)  # room for a heartbeat only
    bench.turn()
    bench.turn()
    assert bench.down_out.get() is None
    bench.down_out.put = put
    bench.turn()
    assert bench.down_out.get().kind is PacketKind.GRADIENT
    assert bench.down_out.get().kind is PacketKind.HEARTBEAT


def test_only_the_newest_unsent_gradient_is_sent_later():
    bench = Bench(1)
    bench.down_out.cut = True
    for step in range(3):
        bench.message(step)
        bench.turn()
    bench.down_out.cut = False
    bench.turn()
    (packet,) = bench.sent_down()
    assert (packet.step, packet.ack) == (2, 2)


# --- heartbeats --------------------------------------------------------------------------------------------


def heartbeats(queue):
    return [packet for packet in iter(queue.get, None) if packet.kind is PacketKind.HEARTBEAT]


def test_a_stage_that_waits_sends_heartbeats():
    bench = Bench(1, heartbeat_interval=5.0)
    for _ in range(11):
        assert bench.turn() is TurnResult.WAITED
    for queue in (bench.up_out, bench.down_out):
        found = heartbeats(queue)
        assert len(found) == 3
        assert {(packet.stage, packet.generation, packet.ended) for packet in found} == {(1, 1, False)}


def test_a_stage_that_sends_gradients_sends_no_heartbeats_down():
    bench = Bench(1, heartbeat_interval=5.0)
    for step in range(10):
        bench.message(step)
        bench.turn()
    assert not heartbeats(bench.down_out)


def test_a_heartbeat_reports_what_was_received():
    bench = Bench(1)
    bench.turn()
    heartbeat = heartbeats(bench.down_out)[-1]
    assert (heartbeat.echo, heartbeat.ack) == (0, -1)
    bench.message(4, generation=2)
    bench.turn()
    bench.turn()
    heartbeat = heartbeats(bench.down_out)[-1]
    assert (heartbeat.echo, heartbeat.ack) == (2, 4)
    bench.heartbeat_below(generation=3)  # none of its messages has come yet
    bench.turn()
    heartbeat = heartbeats(bench.down_out)[-1]
    assert (heartbeat.echo, heartbeat.ack) == (3, -1)


def test_the_end_is_reported_after_the_last_message_not_before():
    bench = Bench(1, queue=1)
    for step in (STEPS - 2, STEPS - 1):
        bench.message(step)
        bench.turn()
    assert bench.turn() is TurnResult.ENDED  # but the last message finds no room above
    assert not bench.node.done
    sent = list(iter(bench.up_out.get, None))
    assert [packet.kind for packet in sent] == [PacketKind.MESSAGE, PacketKind.HEARTBEAT]
    assert not any(packet.ended for packet in sent)
    assert [packet.step for packet in sent] == [STEPS - 2] * 2
    bench.heartbeat_above(echo=1, ack=STEPS - 2)
    assert [bench.turn() for _ in range(2)] == [TurnResult.ENDED] * 2
    assert not bench.node.done  # it was sent, but may not have arrived
    bench.heartbeat_above(echo=1, ack=STEPS - 1)
    assert bench.turn() is TurnResult.ENDED
    assert bench.node.done
    sent = list(iter(bench.up_out.get, None))
    assert [packet.kind for packet in sent] == [PacketKind.MESSAGE, *[PacketKind.HEARTBEAT] * 3]
    assert [packet.ended for packet in sent] == [False, True, True, True]
    assert [packet.step for packet in sent] == [STEPS - 1] * 4


def test_a_stage_ends_after_the_last_step_or_when_the_stage_below_has_ended():
    last = Bench(1)
    last.message(STEPS - 1)
    assert [last.turn(), last.turn()] == [TurnResult.STEPPED, TurnResult.ENDED]
    notified = Bench(1)
    notified.message(3)
    notified.heartbeat_below(ended=True)
    assert [notified.turn(), notified.turn()] == [TurnResult.STEPPED, TurnResult.ENDED]
    for bench in (last, notified):
        assert bench.node.ended
        assert heartbeats(bench.up_out)[-1].ended
        assert heartbeats(bench.down_out)[-1].ended
        bench.message(5)
        assert bench.turn() is TurnResult.ENDED


def test_a_stage_that_has_ended_still_learns_from_gradients():
    bench = Bench(1)
    bench.message(STEPS - 1)
    bench.turn()
    bench.gradient(STEPS - 1)
    assert bench.turn() is TurnResult.ENDED
    assert bench.counters.learnt == 1
