"""The channel in one process: exact lateness, repeatable losses, and nothing else."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from synthgrad.stages.channels import Inlet, Outlet, Packet, PacketKind
from synthgrad.stages.channels.in_process import Queue


class Clock:
    tick = 0

    def __call__(self):
        return self.tick


def message(step):
    return Packet(PacketKind.MESSAGE, 0, 1, step, tensors=(torch.zeros(1),))


def heartbeat(step):
    return Packet(PacketKind.HEARTBEAT, 0, 1, step)


def taken(queue):
    return [packet.step for packet in iter(queue.get, None)]


def test_it_is_both_ends_of_a_channel():
    queue = Queue(Clock())
    assert isinstance(queue, Inlet)
    assert isinstance(queue, Outlet)
    assert queue.get() is None


@pytest.mark.parametrize("lateness", [0, 1, 5])
def test_a_packet_arrives_at_its_tick_not_before(lateness):
    now = Clock()
    queue = Queue(now, lateness)
    now.tick = 3
    sent = message(7)
    assert queue.put(sent)
    for _ in range(lateness):
        assert queue.get() is None
        now.tick += 1
    assert queue.get() is sent
    assert queue.get() is None


@given(st.integers(0, 6), st.lists(st.lists(st.sampled_from([message, heartbeat]), max_size=3), max_size=12))
def test_without_drops_everything_arrives_once_in_order_and_as_late_as_asked(lateness, at):
    now = Clock()
    queue, sent, came = Queue(now, lateness), [], []
    for now.tick in range(len(at) + lateness):
        for kind in at[now.tick] if now.tick < len(at) else []:
            packet = kind(len(sent))
            assert queue.put(packet)
            sent.append((now.tick + lateness, packet))
        came += [(now.tick, packet) for packet in iter(queue.get, None)]
    assert [(tick, packet.step) for tick, packet in came] == [(tick, packet.step) for tick, packet in sent]
    assert not queue.under_way
    assert not queue.refused


@given(st.integers(0, 4), st.lists(st.integers(0, 3), max_size=20))
def test_an_infrequent_reader_gets_everything_that_has_arrived(lateness, gaps):
    now = Clock()
    queue, came = Queue(now, lateness), []
    for step, gap in enumerate(gaps):
        queue.put(message(step))
        now.tick += gap
        if gap > 1:
            came += taken(queue)
            due = [s for s in range(step + 1) if sum(gaps[s : step + 1]) >= lateness]
            assert came == due
    now.tick += lateness
    assert came + taken(queue) == list(range(len(gaps)))


def lost(seed, drop=0.3, count=400):
    queue = Queue(Clock(), drop=drop, random=torch.Generator().manual_seed(seed))
    assert all(queue.put(message(step)) for step in range(count))  # the sender does not notice
    came = taken(queue)
    assert came == sorted(came)
    assert queue.refused["lost"] == count - len(came)
    return set(range(count)) - set(came)


def test_losses_are_the_same_with_the_same_seed():
    assert lost(1) == lost(1)
    assert lost(1) != lost(2)
    assert 0.2 < len(lost(1)) / 400 < 0.4
    assert not lost(1, drop=0.0)


def test_heartbeats_are_never_lost():
    queue = Queue(Clock(), drop=0.999, random=torch.Generator().manual_seed(0))
    for step in range(50):
        queue.put(heartbeat(step))
        queue.put(message(-1 - step))
    assert [step for step in taken(queue) if step >= 0] == list(range(50))
    assert queue.refused["lost"] > 40


def test_a_cut_queue_takes_nothing_and_can_be_emptied():
    queue = Queue(Clock())
    queue.put(message(0))
    queue.cut = True
    assert not queue.put(message(1))
    assert taken(queue) == [0]  # packets under way still arrive
    queue.cut = False
    queue.put(message(2))
    queue.clear()
    assert taken(queue) == []
