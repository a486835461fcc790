"""A stage between its channels: whom it waits for, what it takes in, what it says; packet by packet."""

import copy
import math
from dataclasses import replace

import chains
import pytest
import torch

from synthgrad.channels import Kind, Links, Packet
from synthgrad.channels.queue import Queue
from synthgrad.launch import Policy
from synthgrad.launch.neighbour import Neighbour
from synthgrad.launch.node import Node
from synthgrad.launch.told import Turn

F64 = torch.float64
STEPS = 100


class Clock:
    time = 0.0

    def __call__(self):
        return self.time


class Bench:
    """A node, and the far ends of its channels in the test's hand."""

    def __init__(self, k=1, generation=1, stage=None, complete=False, **policy):
        self.now = Clock()
        self.up_in, self.down_out, self.up_out, self.down_in = (Queue(self.now) for _ in range(4))
        links = Links(
            messages_in=self.up_in if k > 0 else None,
            gradients_out=self.down_out if k > 0 else None,
            messages_out=self.up_out if k < 2 else None,
            gradients_in=self.down_in if k < 2 else None,
        )
        # In silence nobody is out: the tests say who is.
        policy = {"patience": math.inf, "beat": 0.0, **policy}
        built = primed(stage or chains.build(k, complete=complete))
        self.node = Node(built, k, links, STEPS, Policy(**policy), generation, self.now)
        self.k, self.told = k, self.node.told

    def message(self, number, generation=1, **changes):
        h, y = chains.data(number)
        packet = Packet(Kind.MESSAGE, self.k - 1, generation, number, tensors=(h.tanh(), y))
        self.up_in.put(replace(packet, **changes))

    def gradient(self, number, generation=1, echo=1, **changes):
        delta = torch.full((chains.BATCH, chains.WIDTH), 0.1 * (number + 1), dtype=F64)
        packet = Packet(Kind.GRADIENT, self.k + 1, generation, number, echo, number, tensors=(delta,))
        self.down_in.put(replace(packet, **changes))

    def word_below(self, generation=1, **changes):
        self.up_in.put(Packet(Kind.WORD, self.k - 1, generation, **changes))

    def word_above(self, generation=1, **changes):
        self.down_in.put(Packet(Kind.WORD, self.k + 1, generation, **changes))

    def turn(self):
        self.now.time += 1
        return self.node.turn()

    def sent_up(self):
        return [packet for packet in iter(self.up_out.get, None) if packet.kind is Kind.MESSAGE]

    def sent_down(self):
        return [packet for packet in iter(self.down_out.get, None) if packet.kind is Kind.GRADIENT]

    def model(self):
        return [p.detach().clone() for p in self.node.stage.above.gradient_model.parameters()]


def steps(packets):
    return [packet.step for packet in packets]


def primed(stage):
    """With a gradient model that knows its unit: before its first gradient nothing is learnt from it."""
    if stage.above is not None:
        stage.learn(torch.ones(8, 5, dtype=F64), chains.data(0)[1], torch.full((8, 5), 0.25, dtype=F64))
    return stage


# --- a step ------------------------------------------------------------------------------------------------


def test_a_message_becomes_a_message_and_a_gradient(equal):
    bench, twin = Bench(), primed(chains.build(1))
    for step in (0, 1, 5):
        bench.message(step, generation=3)
        assert bench.turn() is Turn.STEPPED
        h, y = chains.data(step)
        done = twin.step(h.tanh(), y)
        (up,), (down,) = bench.sent_up(), bench.sent_down()
        assert equal(up.tensors, [done.message, y])
        assert equal(down.tensors, [done.delta])
        assert (done.delta != 0).all()
        assert (up.kind, up.stage, up.generation, up.step) == (Kind.MESSAGE, 1, 1, step)
        assert (down.kind, down.stage, down.generation, down.step) == (Kind.GRADIENT, 1, 1, step)
        assert (down.echo, down.ack) == (3, step)
    assert (bench.told.steps, bench.told.clock) == (3, 6)


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
    assert (bench.told.learnt, bench.told.lost, bench.told.staleness) == (1, 0, 1.0)
    assert bench.told.regression_loss == twin.regression_loss


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
    assert (bench.told.learnt, bench.told.lost) == (1, 2)
    assert bench.told.staleness == 0


@pytest.mark.parametrize(("limit", "learnt"), [(None, 1), (3, 1), (2, 0)])
def test_gradients_that_are_too_stale_teach_nothing(limit, learnt):
    bench = Bench(max_staleness=limit)
    for step in range(4):
        bench.message(step)
        bench.turn()
    bench.gradient(0)
    bench.turn()
    assert (bench.told.learnt, bench.told.lost) == (learnt, 1 - learnt)
    assert math.isnan(bench.told.staleness) if not learnt else bench.told.staleness == 3


def test_what_is_too_long_owed_is_forgotten():
    bench = Bench(in_flight=2)
    for step in range(4):
        bench.message(step)
        bench.turn()
    for step, (learnt, lost) in ((1, (0, 1)), (2, (1, 1)), (3, (2, 1)), (3, (2, 2))):  # the last has had its answer
        bench.gradient(step)
        bench.turn()
        assert (bench.told.learnt, bench.told.lost) == (learnt, lost)


def test_the_schedule_is_told_the_step_and_the_task_loss_is_kept():
    seen = []
    bench = Bench(2, stage=chains.build(2, seen=lambda k, step: seen.append((k, step))))
    for step in (0, 7):
        bench.message(step)
        bench.turn()
    assert seen == [(2, 0), (2, 7)]
    assert 0.5 < bench.told.loss < 2


def test_a_loss_that_is_not_finite_ends_the_stage():
    bench = Bench(2)
    bench.message(0, tensors=(torch.full((8, 5), math.inf, dtype=F64), chains.data(0)[1]))
    with pytest.raises(ArithmeticError, match="the loss is nan at step 0; try a lower rate"):
        bench.turn()


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


def test_a_stage_on_synthetic_inputs_waits_for_nobody(equal):
    bench = Bench(1, complete=True)
    assert [bench.turn() for _ in range(3)] == [Turn.STEPPED] * 3
    for step, packet in enumerate(bench.sent_down()):
        assert packet.step == step
        assert equal([packet.tensors[1]], [bench.node.stage.below.input_model(chains.data(step)[0])])
    assert steps(bench.sent_up()) == [0, 1, 2]


def test_messages_teach_its_input_model(equal):
    bench, twin = Bench(1, complete=True), primed(chains.build(1, complete=True))
    for step in (3, 4):
        bench.message(step)  # of several, the newest
    bench.turn()
    twin.learn_input(chains.data(4)[0], chains.data(4)[0].tanh())
    twin.step(twin.synthetic_input(chains.data(0)[0]), chains.data(0)[1])
    assert equal(chains.parameters([bench.node.stage]), chains.parameters([twin]))


def test_a_gradient_that_tells_its_message_needs_none_owed(equal):
    """Of a stage above on synthetic inputs; of an earlier life of this stage, too."""
    bench, twin = Bench(0, generation=4), primed(chains.build(0))
    bench.turn()
    h, delta = torch.randn(2, 8, 5, dtype=F64)
    bench.gradient(60, echo=2, tensors=(delta, h))
    bench.turn()
    twin.step(*chains.data(0), first=True)
    twin.learn(h, chains.data(60)[1], delta)
    assert bench.told.learnt == 1
    assert equal(bench.model(), list(twin.above.gradient_model.parameters()))


# --- lives -------------------------------------------------------------------------------------------------


def test_messages_of_an_earlier_life_are_void():
    bench = Bench()
    bench.message(5, generation=2)
    bench.message(6, generation=1)
    bench.message(3, generation=2)
    assert [bench.turn() for _ in range(3)] == [Turn.STEPPED, Turn.STEPPED, Turn.WAITED]
    assert steps(bench.sent_down()) == [5, 3]
    assert bench.told.refused == 0


def test_gradients_of_an_earlier_life_are_void():
    bench = Bench()
    for step in range(2):
        bench.message(step)
        bench.turn()
    bench.word_above(generation=2)
    bench.gradient(1, generation=1)
    bench.turn()
    assert bench.told.learnt == 0
    bench.gradient(1, generation=2)
    bench.turn()
    assert bench.told.learnt == 1


def test_gradients_of_this_stages_own_earlier_life_teach_nothing():
    bench = Bench(generation=2)
    bench.message(0)
    bench.turn()
    bench.gradient(0, echo=1)
    bench.turn()
    assert (bench.told.learnt, bench.told.lost) == (0, 1)
    bench.gradient(0, echo=2)
    bench.turn()
    assert (bench.told.learnt, bench.told.lost) == (1, 1)


def test_a_stage_goes_on_from_its_state(equal):
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
    assert twin.node.told.clock == 4
    fed(twin, 4, 8)
    assert equal(chains.parameters([twin.node.stage]), chains.parameters([bench.node.stage]))
    assert vars(twin.node.told) == vars(bench.told)


def test_the_random_numbers_go_on_too():
    bench = Bench()
    state = copy.deepcopy(bench.node.state_dict())
    wanted = torch.rand(3)
    bench.node.load_state_dict(state)
    assert torch.equal(torch.rand(3), wanted)


def test_a_stage_that_had_ended_has_ended():
    bench = Bench(2)
    bench.message(STEPS - 1)
    assert bench.turn() is Turn.STEPPED
    twin = Bench(2)
    twin.node.load_state_dict(bench.node.state_dict())
    assert twin.turn() is Turn.ENDED


# --- what is not taken in ----------------------------------------------------------------------------------

H, Y = chains.data(0)
WORD = {"kind": Kind.WORD, "tensors": ()}
WRONG = {
    "sender": {"stage": 0},
    "itself": {"stage": 2},
    "far sender": {"stage": 60_000},
    "kind": {"kind": Kind.GRADIENT},
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
    "word with tensors": {**WORD, "tensors": (H,)},
    "word of another": {**WORD, "stage": 0},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_wrong_message_is_refused_and_counted(wrong):
    bench = Bench(2)
    bench.message(0)
    assert bench.turn() is Turn.STEPPED
    before = chains.parameters([bench.node.stage])
    bench.message(1, **wrong)
    assert bench.turn() is Turn.WAITED
    assert bench.told.refused == 1
    assert all(map(torch.equal, chains.parameters([bench.node.stage]), before))
    bench.message(2)
    assert bench.turn() is Turn.STEPPED
    assert (bench.told.refused, bench.told.clock) == (1, 3)


DELTA = torch.ones(8, 5, dtype=F64)
WRONG_GRADIENTS = {
    **{name: WRONG[name] for name in ("far sender", "negative step", "step after the last", "huge step")},
    "itself": {"stage": 0},
    "sender": {"stage": 2},
    "kind": {"kind": Kind.MESSAGE},
    "no tensors": {"tensors": ()},
    "width": {"tensors": (DELTA[:, :4],)},
    "width of both": {"tensors": (DELTA[:, :4], DELTA[:, :4])},
    "scalar": {"tensors": (DELTA.sum(),)},
    "dtype": {"tensors": (DELTA.float(),)},
    "whole numbers": {"tensors": (DELTA.long(),)},
    "a message of whole numbers": {"tensors": (DELTA, DELTA.long())},
    "a message of another form": {"tensors": (DELTA, DELTA[:, None])},
    "word with tensors": {**WORD, "tensors": (DELTA,)},
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
    assert bench.told.refused == 1
    bench.gradient(2)
    bench.turn()
    assert bench.told.learnt == 2 - first


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
    assert (bench.told.learnt, bench.told.lost) == (0, 1)


def test_a_gradient_before_the_first_message_teaches_nothing():
    bench = Bench(0)
    bench.gradient(5)
    bench.gradient(6, tensors=(DELTA[:, :3], DELTA[:, :3]))
    bench.turn()
    assert bench.told.learnt == 0
    bench.gradient(0)
    bench.turn()
    assert bench.told.learnt == 1


@pytest.mark.parametrize("step", [-(2**63), -1, 2**62])
def test_whatever_number_a_word_says_it_is_a_word(step):
    bench = Bench(1)
    for number in (0, 1):
        bench.word_below(step=step)
        bench.word_above(step=step, ack=step, echo=1)
        bench.message(number)
        assert bench.turn() is Turn.STEPPED
    assert bench.told.refused == 0


def test_a_smaller_last_batch_is_welcome():
    bench = Bench(1)
    for step, count in ((0, 8), (1, 3), (2, 8)):
        h, y = chains.data(step)
        bench.message(step, tensors=(h[:count], y[:count]))
        assert bench.turn() is Turn.STEPPED
        bench.gradient(step, tensors=(DELTA[:count],))
    bench.turn()
    assert (bench.told.refused, bench.told.lost, bench.told.learnt) == (0, 0, 3)


# --- room, and who waits -----------------------------------------------------------------------------------


def test_a_stage_waits_while_the_one_above_has_no_room():
    bench = Bench(0, queue=3)
    assert [bench.turn() for _ in range(6)] == [Turn.STEPPED] * 4 + [Turn.WAITED] * 2  # 3 and one in hand
    assert steps(bench.sent_up()) == [0, 1, 2]
    assert bench.told.queue == 4
    bench.word_above(echo=1, ack=1)  # has taken in two
    assert [bench.turn() for _ in range(3)] == [Turn.STEPPED] * 2 + [Turn.WAITED]
    assert steps(bench.sent_up()) == [3, 4]
    assert bench.told.dropped == 0


def test_its_first_word_makes_no_room():
    """It has not taken in anything: the first life has nothing of an earlier one to forget."""
    bench = Bench(0, queue=3)
    for _ in range(6):
        bench.turn()
    bench.word_above(echo=1, ack=-1)
    assert bench.turn() is Turn.WAITED
    assert steps(bench.sent_up()) == [0, 1, 2]


def test_a_new_life_above_makes_room():
    bench = Bench(0, queue=3)
    for _ in range(6):
        bench.turn()
    bench.word_above(generation=2)
    assert [bench.turn() for _ in range(4)] == [Turn.STEPPED] * 3 + [Turn.WAITED]


def test_an_impatient_stage_drops_its_oldest_message():
    stage = chains.build(0)
    stage.patient = False
    bench = Bench(0, stage=stage, queue=2)
    assert [bench.turn() for _ in range(7)] == [Turn.STEPPED] * 7
    assert steps(bench.sent_up()) == [0, 1]
    assert bench.told.dropped == 3
    bench.word_above(echo=1, ack=1)
    bench.turn()
    assert steps(bench.sent_up()) == [5, 6]


@pytest.mark.parametrize("ended", [False, True])
def test_nobody_waits_for_a_stage_above_that_is_gone_or_has_ended(ended):
    """Also where it has ended, and this one has been thrown back to an older checkpoint."""
    bench = Bench(0, queue=2)
    bench.word_above(echo=1, ended=ended)
    for _ in range(3):
        bench.turn()
    bench.up_out.cut = not ended
    assert [bench.turn() for _ in range(5)] == [Turn.STEPPED] * 5
    assert bench.told.dropped == 4
    bench.word_above(generation=2)  # it is back
    bench.up_out.cut = False
    assert [bench.turn() for _ in range(4)] == [Turn.STEPPED] + [Turn.WAITED] * 3
    assert steps(bench.sent_up()) == [0, 1, 6, 7]


def test_a_message_that_got_lost_takes_no_room_for_ever():
    """After a broken connection, say. A word says what has been sent; whoever hears it has all that will come."""
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
    assert bench.told.steps >= 4
    assert bench.told.dropped == 0
    assert above.told.clock >= 3


def test_an_answer_is_kept_until_it_can_be_sent():
    bench = Bench(1)
    bench.down_out.cut = True  # no room, for a moment
    bench.message(0)
    bench.turn()
    bench.down_out.cut = False
    bench.turn()
    assert steps(bench.sent_down()) == [0]
    bench.turn()
    assert not bench.sent_down()


def test_no_word_overtakes_the_answer_that_it_acknowledges():
    bench = Bench(1)
    bench.message(0)
    put = bench.down_out.put
    bench.down_out.put = lambda packet: not packet.tensors and put(packet)  # room for a word, not for more
    bench.turn()
    bench.turn()
    assert bench.down_out.get() is None
    bench.down_out.put = put
    bench.turn()
    assert bench.down_out.get().kind is Kind.GRADIENT
    assert bench.down_out.get().kind is Kind.WORD


def test_of_the_answers_that_could_not_be_sent_the_newest_is():
    bench = Bench(1)
    bench.down_out.cut = True
    for step in range(3):
        bench.message(step)
        bench.turn()
    bench.down_out.cut = False
    bench.turn()
    (packet,) = bench.sent_down()
    assert (packet.step, packet.ack) == (2, 2)


# --- words -------------------------------------------------------------------------------------------------


def words(queue):
    return [packet for packet in iter(queue.get, None) if packet.kind is Kind.WORD]


def test_a_stage_that_waits_says_a_word_now_and_then():
    bench = Bench(1, beat=5.0)
    for _ in range(11):
        assert bench.turn() is Turn.WAITED
    for queue in (bench.up_out, bench.down_out):
        found = words(queue)
        assert len(found) == 3
        assert {(word.stage, word.generation, word.ended) for word in found} == {(1, 1, False)}


def test_who_answers_needs_no_words():
    bench = Bench(1, beat=5.0)
    for step in range(10):
        bench.message(step)
        bench.turn()
    assert not words(bench.down_out)


def test_a_word_says_what_has_been_taken_in():
    bench = Bench(1)
    bench.turn()
    word = words(bench.down_out)[-1]
    assert (word.echo, word.ack) == (0, -1)
    bench.message(4, generation=2)
    bench.turn()
    bench.turn()
    word = words(bench.down_out)[-1]
    assert (word.echo, word.ack) == (2, 4)
    bench.word_below(generation=3)  # of whose messages none has come yet
    bench.turn()
    word = words(bench.down_out)[-1]
    assert (word.echo, word.ack) == (3, -1)


def test_the_end_is_said_after_the_last_message_not_before():
    bench = Bench(1, queue=1)
    for step in (STEPS - 2, STEPS - 1):
        bench.message(step)
        bench.turn()
    assert bench.turn() is Turn.ENDED  # but there is no room above for the last message
    assert not bench.node.done
    sent = list(iter(bench.up_out.get, None))
    assert [packet.kind for packet in sent] == [Kind.MESSAGE, Kind.WORD]
    assert not any(packet.ended for packet in sent)
    assert [packet.step for packet in sent] == [STEPS - 2] * 2
    bench.word_above(echo=1, ack=STEPS - 2)
    assert [bench.turn() for _ in range(2)] == [Turn.ENDED] * 2
    assert bench.node.done
    sent = list(iter(bench.up_out.get, None))
    assert [packet.kind for packet in sent] == [Kind.MESSAGE, Kind.WORD, Kind.WORD]
    assert [packet.ended for packet in sent] == [False, True, True]
    assert [packet.step for packet in sent] == [STEPS - 1] * 3


def test_the_end_comes_from_below_or_with_the_last_step():
    last = Bench(1)
    last.message(STEPS - 1)
    assert [last.turn(), last.turn()] == [Turn.STEPPED, Turn.ENDED]
    told = Bench(1)
    told.message(3)
    told.word_below(ended=True)
    assert [told.turn(), told.turn()] == [Turn.STEPPED, Turn.ENDED]
    for bench in (last, told):
        assert bench.node.over
        assert words(bench.up_out)[-1].ended
        assert words(bench.down_out)[-1].ended
        bench.message(5)
        assert bench.turn() is Turn.ENDED


def test_a_stage_that_has_ended_still_learns_from_gradients():
    bench = Bench(1)
    bench.message(STEPS - 1)
    bench.turn()
    bench.gradient(STEPS - 1)
    assert bench.turn() is Turn.ENDED
    assert bench.told.learnt == 1


# --- replay ------------------------------------------------------------------------------------------------


def test_while_the_stage_below_is_out_a_stage_goes_on_with_its_past(equal):
    bench, twin = Bench(1, replay=2), primed(chains.build(1))
    for step in range(3):
        bench.message(step)
        bench.turn()
        twin.step(chains.data(step)[0].tanh(), chains.data(step)[1])
    assert bench.turn() is Turn.WAITED  # it is alive
    bench.sent_up()
    bench.sent_down()
    bench.down_out.cut = True
    assert [bench.turn() for _ in range(3)] == [Turn.STEPPED] * 3
    for step in (2, 1, 2):
        twin.step(chains.data(step)[0].tanh(), chains.data(step)[1])
    assert equal(chains.parameters([bench.node.stage]), chains.parameters([twin]))
    assert (bench.told.replayed, bench.told.steps, bench.told.clock) == (3, 6, 3)
    bench.down_out.cut = False
    assert not bench.sent_up()
    assert not bench.sent_down()
    assert bench.turn() is Turn.WAITED
    bench.message(3)
    bench.turn()
    assert steps(bench.sent_up()) == [3]


@pytest.mark.parametrize("kind", ["no replay", "no past", "ended"])
def test_otherwise_it_waits(kind):
    bench = Bench(1, replay=0 if kind == "no replay" else 4)
    if kind == "no past":
        bench.word_below()
    else:
        bench.message(0)
        bench.turn()
    if kind == "ended":
        bench.word_below(ended=True)
    bench.down_out.cut = True
    assert bench.turn() is (Turn.ENDED if kind == "ended" else Turn.WAITED)
    assert bench.told.replayed == 0


# --- lockstep ----------------------------------------------------------------------------------------------


def test_in_lockstep_the_gradient_comes_first():
    bench = Bench(0, lockstep=True)
    assert [bench.turn() for _ in range(3)] == [Turn.STEPPED] + [Turn.WAITED] * 2
    bench.gradient(0)
    assert [bench.turn() for _ in range(2)] == [Turn.STEPPED, Turn.WAITED]
    bench.word_above(echo=1, ack=0)
    assert bench.turn() is Turn.WAITED
    assert bench.told.learnt == 1


def test_in_lockstep_a_first_word_is_no_answer():
    bench = Bench(0, lockstep=True)
    bench.turn()
    bench.word_above()
    assert bench.turn() is Turn.WAITED


@pytest.mark.parametrize("seen", [True, False], ids=["and was seen to be", "unseen"])
def test_lockstep_goes_on_when_the_stage_above_died_with_the_message(seen):
    bench = Bench(0, lockstep=True)
    bench.word_above()
    bench.turn()
    assert bench.turn() is Turn.WAITED
    if seen:
        bench.up_out.cut = True
        assert bench.turn() is Turn.STEPPED
        bench.up_out.cut = False
    bench.word_above(generation=2)
    step = bench.told.clock - seen
    for expected in range(step, step + 3):
        while bench.turn() is Turn.STEPPED:
            pass
        assert steps(bench.sent_up())[-1] == bench.told.clock - 1 >= expected
        bench.gradient(bench.told.clock - 1, generation=2)
    assert bench.told.learnt >= 2


def test_lockstep_does_not_wait_for_a_stage_that_has_ended():
    bench = Bench(0, lockstep=True)
    bench.turn()
    bench.word_above(ended=True)
    assert bench.turn() is Turn.STEPPED


def test_in_lockstep_the_last_gradient_is_waited_for():
    bench = Bench(1, lockstep=True)
    bench.message(STEPS - 1)
    bench.turn()
    assert bench.turn() is Turn.ENDED
    assert not bench.node.done
    bench.gradient(STEPS - 1)
    bench.turn()
    assert bench.node.done
    assert bench.told.learnt == 1


# --- where it waits ----------------------------------------------------------------------------------------


def test_a_stage_wakes_up_for_what_can_change_something():
    bench = Bench(1, queue=1)
    bench.word_above()
    both = [bench.up_in, bench.down_in]
    assert bench.node.waits_for() == both
    for step in range(2):
        bench.message(step)
        bench.turn()
    assert bench.node.waits_for() == [bench.down_in]  # there is no room above: a message could not be used
    bench.up_out.cut = True
    assert bench.node.waits_for() == both
    bench.up_out.cut = False
    bench.word_above(generation=2)
    bench.turn()
    assert bench.node.waits_for() == both
    bench.word_below(ended=True)
    bench.turn()
    assert bench.node.waits_for() == [bench.down_in]
    first, last = Bench(0), Bench(2)
    assert first.node.waits_for() == [first.down_in]
    assert last.node.waits_for() == [last.up_in]
    impatient = Bench(1, complete=True, queue=1)
    for _ in range(4):
        impatient.turn()
    assert impatient.node.waits_for() == [impatient.up_in, impatient.down_in]


# --- neighbours --------------------------------------------------------------------------------------------


def neighbour(**policy):
    now = Clock()
    return Neighbour(Policy(**policy), now), now


def said(generation=1, **changes):
    return Packet(Kind.WORD, 0, generation, **changes)


def test_until_its_first_word_a_neighbour_may_take_long():
    it, now = neighbour(start_within=50.0, patience=1.0)
    now.time = 50.0
    assert not it.out(cut=False)
    now.time = 50.1
    assert it.out(cut=False)


def test_a_silent_neighbour_is_out():
    it, now = neighbour(patience=2.0)
    it.heard(said())
    now.time = 2.0
    assert not it.out(cut=False)
    now.time = 2.1
    assert it.out(cut=False)
    it.heard(said())
    assert not it.out(cut=False)


def test_a_cut_one_is_out_at_once_unless_it_has_ended():
    it, _ = neighbour()
    it.heard(said())
    assert it.out(cut=True)
    it.heard(said(ended=True))
    assert not it.out(cut=True)


def test_a_slow_speaker_is_borne_longer():
    it, now = neighbour(patience=1.0)
    for _ in range(30):
        it.heard(said())
        now.time += 4.0
    now.time += 15.9
    assert not it.out(cut=False)
    now.time += 0.2
    assert it.out(cut=False)


def test_an_outage_is_not_what_is_usual():
    it, now = neighbour(patience=1.0)
    for _ in range(30):
        it.heard(said())
        now.time += 0.1
    now.time += 1000.0
    it.heard(said())
    now.time += 1.1
    assert it.out(cut=False)


def test_room_is_made_by_what_is_taken_in():
    it, _ = neighbour()
    it.heard(said())
    it.under_way.extend([3, 4, 7])
    for ack, echo, left in ((9, 1, [3, 4, 7]), (4, 2, [3, 4, 7]), (4, 1, [7]), (3, 1, [7]), (7, 1, [])):
        it.heard(said(ack=ack, echo=echo), mine=1)
        assert list(it.under_way) == left
    assert it.room(1)


def test_words_from_below_are_about_no_messages():
    it, _ = neighbour()
    it.under_way.append(-1)
    it.heard(said(ack=-1))
    assert list(it.under_way) == [-1]


@pytest.mark.parametrize(
    ("first", "second", "forgotten"), [(0, 1, False), (0, 2, True), (1, 1, False), (1, 2, True)]
)
def test_what_a_neighbour_had_not_taken_in_dies_with_it(first, second, forgotten):
    it, _ = neighbour()
    if first:
        it.heard(said(first))
    it.under_way.append(5)
    assert it.heard(said(second))
    assert bool(it.under_way) != forgotten
    assert not it.heard(said(second - 1))


@pytest.mark.parametrize(
    "wrong",
    [{"queue": 0}, {"in_flight": 0}, {"checkpoint_every": 0}, {"threads": 0}, {"limit": 0}, {"replay": -1},
     {"max_restarts": -1}, {"patience": -1.0}, {"hang_after": 0.0}],
    ids=str,
)  # fmt: skip
def test_a_policy_that_could_not_work_is_refused(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"{name}={value}: it must be at least"):
        Policy(**wrong)


def test_the_default_policy_and_the_least_one():
    Policy()
    Policy(queue=1, in_flight=1, checkpoint_every=1, threads=1, limit=1, replay=0, max_restarts=0, patience=0.0)
