"""A neighbour's packets show whether it is alive, what it has received, and which of its processes sent them."""

import pytest

from synthgrad.stages import Policy
from synthgrad.stages.channels import Packet, PacketKind
from synthgrad.stages.neighbour import Neighbour
from tests.helpers.one_node import Clock


def neighbour(**policy):
    now = Clock()
    return Neighbour(Policy(**policy), now), now


def heartbeat(generation=1, **changes):
    return Packet(PacketKind.HEARTBEAT, 0, generation, **changes)


def test_a_neighbour_may_take_long_to_send_its_first_packet():
    it, now = neighbour(start_within=50.0, silence_timeout=1.0)
    now.time = 50.0
    assert not it.is_down(cut=False)
    now.time = 50.1
    assert it.is_down(cut=False)


def test_a_silent_neighbour_is_down():
    it, now = neighbour(silence_timeout=2.0)
    it.observe(heartbeat())
    now.time = 2.0
    assert not it.is_down(cut=False)
    now.time = 2.1
    assert it.is_down(cut=False)
    it.observe(heartbeat())
    assert not it.is_down(cut=False)


def test_a_neighbour_whose_connection_is_cut_is_down_at_once_unless_it_has_ended():
    it, _ = neighbour()
    it.observe(heartbeat())
    assert it.is_down(cut=True)
    it.observe(heartbeat(ended=True))
    assert not it.is_down(cut=True)


def test_a_neighbour_that_seldom_sends_may_be_silent_for_longer():
    it, now = neighbour(silence_timeout=1.0)
    for _ in range(30):
        it.observe(heartbeat())
        now.time += 4.0
    now.time += 15.9
    assert not it.is_down(cut=False)
    now.time += 0.2
    assert it.is_down(cut=False)


def test_an_outage_hardly_changes_the_usual_interval():
    it, now = neighbour(silence_timeout=1.0)
    for _ in range(30):
        it.observe(heartbeat())
        now.time += 0.1
    now.time += 1000.0
    it.observe(heartbeat())
    now.time += 1.1
    assert it.is_down(cut=False)


def test_received_messages_make_room():
    it, _ = neighbour()
    it.observe(heartbeat())
    it.unreceived.extend([3, 4, 7])
    for ack, echo, left in ((9, 1, [3, 4, 7]), (4, 2, [3, 4, 7]), (4, 1, [7]), (3, 1, [7]), (7, 1, [])):
        it.observe(heartbeat(ack=ack, echo=echo), own_generation=1)
        assert list(it.unreceived) == left
    assert it.has_room(1)


def test_heartbeats_from_below_acknowledge_nothing():
    it, _ = neighbour()
    it.unreceived.append(-1)
    it.observe(heartbeat(ack=-1))
    assert list(it.unreceived) == [-1]


@pytest.mark.parametrize(
    ("first", "second", "forgotten"), [(0, 1, False), (0, 2, True), (1, 1, False), (1, 2, True)]
)
def test_unreceived_messages_are_lost_when_the_neighbour_restarts(first, second, forgotten):
    it, _ = neighbour()
    if first:
        it.observe(heartbeat(first))
    it.unreceived.append(5)
    assert it.observe(heartbeat(second))
    assert bool(it.unreceived) != forgotten
    assert not it.observe(heartbeat(second - 1))
