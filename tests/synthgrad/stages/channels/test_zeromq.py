"""Real sockets: packets of the run arrive, foreign ones do not, and no call ever waits."""

import importlib
import socket
import struct
import sys
import threading
import time
from dataclasses import astuple, replace
from pathlib import Path

import pytest
import torch
import zmq

from synthgrad.stages import Policy
from synthgrad.stages.channels import Inlet, Outlet, Packet, PacketKind
from synthgrad.stages.channels.wire import encode
from synthgrad.stages.channels.zeromq import Hub, Keys, ZmqInlet, ZmqOutlet
from synthgrad.stages.runners.plan import Plan

RUN = b"0123456789abcdef"
HEARTBEAT = Packet(PacketKind.HEARTBEAT, 1, 2)
PLACES = ["ipc", "tcp"]


@pytest.fixture
def hubs():
    """Makes hubs, and checks that each can be closed quickly."""
    made = []

    def make(run=RUN, **settings):
        made.append(Hub(run, **settings))
        return made[-1]

    yield make
    for hub in made:
        closed(hub)


def closed(hub):
    closing = threading.Thread(target=hub.close, daemon=True)
    closing.start()
    closing.join(10)
    assert not closing.is_alive(), "close() hangs"


@pytest.fixture
def at(tmp_path):
    """A free address of a kind; tcp's port is chosen when it is bound."""
    return lambda place: f"ipc://{tmp_path}/inlet" if place == "ipc" else "tcp://127.0.0.1:*"


@pytest.fixture
def pair(hubs, at):
    """Two ends, each in a hub of its own."""

    def make(place="ipc", **settings):
        inlet = ZmqInlet(hubs(**settings), at(place))
        return inlet, ZmqOutlet(hubs(**settings), inlet.address)

    return make


def soon(ask, seconds=10.0):
    """The first true result of ``ask``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := ask():
            return found
        time.sleep(0.002)
    raise AssertionError(f"not within {seconds} s")


def arrives(outlet, inlet, packet):
    soon(lambda: outlet.put(packet))
    return soon(inlet.get)


def message(step, *tensors):
    return Packet(PacketKind.MESSAGE, 0, 1, step, tensors=tensors)


def intruder(address, kind=zmq.PUSH, **settings):
    """A context and a socket that do not belong to the run."""
    context = zmq.Context()
    stranger = context.socket(kind)
    stranger.linger = 0
    for name, value in settings.items():
        setattr(stranger, name, value)
    stranger.connect(address)
    return context, stranger


def nothing_comes(inlet, seconds=0.3):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert inlet.get() is None
        time.sleep(0.01)


# --- packets arrive ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
def test_packets_arrive_whole_and_in_order(pair, place):
    inlet, outlet = pair(place)
    assert isinstance(inlet, Inlet)
    assert isinstance(outlet, Outlet)
    sent = [
        Packet(
            PacketKind.GRADIENT, 3, 2, 17, 4, 16, tensors=(torch.randn(5, 2, dtype=torch.float64), torch.ones(5, 2))
        ),
        message(1, torch.randn(512, 1024), torch.arange(512)),  # above what pyzmq copies: our own memory
        message(2, torch.empty(0, 7)),
        message(3, torch.tensor(2.5), torch.tensor([True, False])),
        replace(HEARTBEAT, ended=True, step=9),
    ]
    for packet in sent:
        came = arrives(outlet, inlet, packet)
        assert astuple(replace(came, tensors=())) == astuple(replace(packet, tensors=()))
        assert [t.dtype for t in came.tensors] == [t.dtype for t in packet.tensors]
        assert all(torch.equal(a, b) for a, b in zip(came.tensors, packet.tensors, strict=True))
    assert inlet.get() is None
    assert not +inlet.refused


def test_a_tensor_need_not_be_kept_while_it_is_being_sent(pair):
    inlet, outlet = pair()
    for step in range(20):
        soon(lambda step=step: outlet.put(message(step, torch.full((64, 1024), float(step)))))
        torch.full((64, 1024), -1.0)  # would take the freed memory
        came = soon(inlet.get)
        assert came.step == step
        assert (came.tensors[0] == step).all()


def test_the_receiver_may_come_later(hubs, at):
    outlet = ZmqOutlet(hubs(), at("ipc"))
    assert not outlet.put(HEARTBEAT)
    inlet = ZmqInlet(hubs(), at("ipc"))
    assert (
        arrives(outlet, inlet, replace(HEARTBEAT, step=5)).step == 5
    )  # the earlier one, without a receiver, was not queued
    assert inlet.get() is None


def test_several_senders_share_an_inlet(hubs, at):
    inlet = ZmqInlet(hubs(), at("ipc"))
    outlets = [ZmqOutlet(hubs(), inlet.address) for _ in range(3)]
    assert [arrives(outlet, inlet, replace(HEARTBEAT, step=k)).step for k, outlet in enumerate(outlets)] == [
        0,
        1,
        2,
    ]


# --- no call waits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["ipc://{}/unused", "tcp://127.0.0.1:9"])
def test_without_a_peer_put_fails_at_once(hubs, tmp_path, address):
    outlet, began = ZmqOutlet(hubs(), address.format(tmp_path)), time.monotonic()
    assert not any(outlet.put(message(step, torch.zeros(1000))) for step in range(200))
    assert time.monotonic() - began < 2
    assert not outlet.cut  # there was no connection that could end


@pytest.mark.parametrize("place", PLACES)
def test_a_peer_that_does_not_read_gets_a_bounded_number(pair, place):
    inlet, outlet = pair(place)
    big, taken = torch.zeros(1 << 20), 0
    arrives(outlet, inlet, HEARTBEAT)
    began = time.monotonic()
    while time.monotonic() - began < 0.5:
        taken += outlet.put(message(taken, big))
    assert 1 <= taken <= 8 + 1 + 16  # both queues, and what the kernel and the sockets buffer
    assert [soon(inlet.get).step for _ in range(taken)] == list(range(taken))  # none of them is lost
    nothing_comes(inlet, 0.1)


def test_waiting_ends_when_a_packet_comes_or_the_time_is_over(pair, hubs):
    inlet, outlet = pair()
    hub, began = inlet.hub, time.monotonic()
    hub.wait([inlet], 0.1)
    hub.wait([], 0.1)
    assert 0.19 < time.monotonic() - began < 2
    soon(lambda: outlet.put(HEARTBEAT))
    began = time.monotonic()
    hub.wait([inlet], 20.0)
    assert time.monotonic() - began < 10
    assert soon(inlet.get) == HEARTBEAT


# --- connections -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
def test_a_cut_connection_is_noticed_and_restored(hubs, at, place):
    inlet = ZmqInlet(hubs(), at(place))
    outlet = ZmqOutlet(hubs(), address := inlet.address)
    arrives(outlet, inlet, HEARTBEAT)
    assert not outlet.cut
    for life in range(2):
        closed(inlet.hub)
        soon(lambda: outlet.cut)
        assert not outlet.put(HEARTBEAT)
        inlet = soon(lambda: bound(hubs(), address))
        soon(lambda: not outlet.cut)
        assert arrives(outlet, inlet, replace(HEARTBEAT, step=life)).step == life


def bound(hub, address):
    """An inlet, or None while the address is still in use."""
    try:
        return ZmqInlet(hub, address)
    except ValueError:
        return None


@pytest.mark.parametrize("place", PLACES)
def test_a_redirected_outlet_sends_to_the_new_address(hubs, at, tmp_path, place):
    old = ZmqInlet(hubs(), at(place))
    new = ZmqInlet(hubs(), f"ipc://{tmp_path}/new" if place == "ipc" else "tcp://127.0.0.1:0")
    outlet = ZmqOutlet(hubs(), old.address)
    arrives(outlet, old, HEARTBEAT)
    outlet.redirect(new.address)
    assert outlet.address == new.address
    assert arrives(outlet, new, replace(HEARTBEAT, step=1)).step == 1
    soon(lambda: not outlet.cut)
    outlet.redirect(new.address)  # the same address changes nothing
    assert arrives(outlet, new, replace(HEARTBEAT, step=2)).step == 2
    nothing_comes(old, 0.1)
    assert not outlet.cut
    assert len(outlet.hub.sockets) == 1


# --- foreign packets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
def test_foreign_and_damaged_packets_are_dropped_and_counted(pair, place):
    inlet, outlet = pair(place)
    good = [bytes(frame) for frame in encode(message(1, torch.ones(2)), RUN)]
    foreign = [bytes(frame) for frame in encode(HEARTBEAT, b"another run here")]
    context, stranger = intruder(inlet.address)
    try:
        torch.manual_seed(0)
        for frames in ([b""], [b"hello"], [bytes(torch.randint(256, (102,), dtype=torch.uint8))], good[:1],
                       [good[0], good[1][:-1]], [*good, b"more"], foreign, foreign):  # fmt: skip
            stranger.send_multipart(frames)
        wanted = {"header": 2, "magic": 1, "frames": 2, "size": 1, "run": 2}
        soon(lambda: inlet.get() is not None or inlet.refused.total() == 8)
        assert dict(inlet.refused) == wanted
    finally:
        context.destroy(linger=0)
    assert arrives(outlet, inlet, message(3, torch.ones(2))).step == 3
    assert dict(inlet.refused) == wanted


@pytest.mark.parametrize("place", PLACES)
def test_a_frame_above_the_limit_is_not_received(hubs, at, place):
    inlet = ZmqInlet(hubs(limit=1000), at(place))
    careless = ZmqOutlet(hubs(), inlet.address)
    outlet = ZmqOutlet(hubs(limit=1000), inlet.address)
    arrives(careless, inlet, HEARTBEAT)
    assert arrives(careless, inlet, message(0, torch.zeros(250))).step == 0
    soon(lambda: careless.put(message(1, torch.zeros(251))))
    soon(lambda: careless.cut)
    assert arrives(outlet, inlet, replace(HEARTBEAT, step=2)).step == 2
    assert arrives(careless, inlet, replace(HEARTBEAT, step=3)).step == 3  # connected again
    nothing_comes(inlet, 0.1)


def test_a_sender_cannot_exceed_its_own_limit(pair):
    """Otherwise it would try for ever to send a tensor that no stage receives."""
    inlet, outlet = pair(limit=1000)
    assert arrives(outlet, inlet, message(0, torch.zeros(250))).step == 0
    with pytest.raises(ValueError, match="a tensor of 1004 bytes: the limit is 1000; raise it"):
        outlet.put(message(1, torch.zeros(251)))


GREETING = b"\xff" + bytes(8) + b"\x7f\3\0" + b"NULL".ljust(20, b"\0") + bytes(32)
READY = b"\x05READY\x0bSocket-Type" + struct.pack("!I", 4) + b"PUSH"
READY = b"\4" + bytes([len(READY)]) + READY


@pytest.mark.parametrize(
    ("talk", "thrown_out"),
    [
        (b"GET / HTTP/1.1\r\nHost: you\r\n\r\n", False),
        (b"\xff" * 500, True),
        (GREETING[:20], False),
        (GREETING.replace(b"NULL", b"NONE"), True),
        (GREETING + b"\4\3\2bad", True),
        (GREETING + READY + b"\2" + struct.pack("!Q", 10 * 2**30) + b"x" * 100, True),
        (GREETING + READY + b"\2" + struct.pack("!Q", 2**64 - 1) + b"x" * 100, True),
    ],
    ids=["http", "noise", "a beginning", "no mechanism", "no command", "10 GB", "a negative size"],
)
@pytest.mark.parametrize("keys", [None, Keys.generate()], ids=["open", "curve"])
def test_a_client_that_sends_nonsense_does_no_harm(pair, talk, thrown_out, keys):
    inlet, outlet = pair("tcp", keys=keys)
    host, port = inlet.address.removeprefix("tcp://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        client.sendall(talk)
        if thrown_out:
            assert gone(client)
        assert arrives(outlet, inlet, message(1, torch.ones(3))).step == 1
    assert arrives(outlet, inlet, message(2, torch.ones(3))).step == 2
    assert inlet.get() is None


def gone(client):
    try:
        while client.recv(1000):
            pass
    except ConnectionError:
        pass
    return True


def test_a_flood_of_junk_does_not_hold_up_the_receiver(hubs, at):
    """One call refuses a bounded number of packets, however many wait; the packet after the junk arrives."""
    inlet = ZmqInlet(hubs(), at("ipc"), queue=1000)
    context, stranger = intruder(inlet.address)
    try:
        for _ in range(300):
            stranger.send(b"junk")
        stranger.send_multipart([bytes(frame) for frame in encode(replace(HEARTBEAT, step=7), RUN)])
        looks = []

        def look():
            before = inlet.refused.total()
            packet = inlet.get()
            looks.append(inlet.refused.total() - before)
            return packet

        assert soon(look).step == 7
    finally:
        context.destroy(linger=0)
    assert sum(looks) == 300
    assert max(looks) <= 32


# --- keys --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
def test_with_the_runs_keys_packets_arrive(pair, place):
    inlet, outlet = pair(place, keys=Keys.generate())
    h = torch.randn(512, 256)
    assert torch.equal(arrives(outlet, inlet, message(4, h)).tensors[0], h)
    assert not +inlet.refused
    assert not outlet.cut


def test_no_text_shows_the_secret(hubs):
    keys = Keys.generate()
    plan = Plan(print, 2, 1, Policy(), Path("x"), b"r" * 16, keys=keys)
    for shown in (repr(keys), str(keys), repr(plan), repr(hubs(keys=keys)), f"{keys} {plan}"):
        assert keys.secret.decode() not in shown
        assert repr(b"r" * 16) not in shown
    assert keys.public.decode() in repr(keys)


def test_without_zeromq_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "synthgrad.stages.channels.zeromq")
    monkeypatch.setitem(sys.modules, "zmq", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'synthgrad\[stages\]'"):
        importlib.import_module("synthgrad.stages.channels.zeromq")


def test_without_the_runs_keys_no_packet_arrives(hubs, at):
    keys, (public, secret) = Keys.generate(), zmq.curve_keypair()
    inlet = ZmqInlet(hubs(keys=keys), at("tcp"))
    its_own = {"curve_publickey": public, "curve_secretkey": secret}
    frames = [bytes(frame) for frame in encode(HEARTBEAT, RUN)]
    for n, settings in enumerate(({}, {**its_own, "curve_serverkey": public},
                                  {**its_own, "curve_serverkey": keys.public})):  # fmt: skip
        before = inlet.refused["handshake"]
        context, stranger = intruder(inlet.address, immediate=True, **settings)
        try:
            soon(lambda before=before: inlet.get() is not None or inlet.refused["handshake"] > before)
            with pytest.raises(zmq.Again):
                stranger.send_multipart(frames, zmq.NOBLOCK)
            nothing_comes(inlet, 0.1)
        finally:
            context.destroy(linger=0)
        assert inlet.refused["handshake"] > n
    assert set(inlet.refused) == {"handshake"}
    assert arrives(ZmqOutlet(hubs(keys=keys), inlet.address), inlet, HEARTBEAT) == HEARTBEAT


def test_packets_of_a_run_with_other_keys_do_not_arrive(hubs, at):
    inlet = ZmqInlet(hubs(keys=Keys.generate()), at("tcp"))
    other = ZmqOutlet(hubs(keys=Keys.generate()), inlet.address)
    soon(lambda: inlet.get() is not None or inlet.refused["handshake"])
    assert not other.put(HEARTBEAT)
    nothing_comes(inlet, 0.1)


def test_packets_under_curve_cannot_be_read_on_the_way(hubs):
    """A relay sees all bytes."""
    keys = Keys.generate()
    for guarded in (True, False):
        hub = {"keys": keys} if guarded else {}
        inlet, seen = ZmqInlet(hubs(**hub), "tcp://127.0.0.1:*"), []
        with socket.create_server(("127.0.0.1", 0)) as relay:
            outlet = ZmqOutlet(hubs(**hub), f"tcp://127.0.0.1:{relay.getsockname()[1]}")
            threading.Thread(target=listen_in, args=(relay, inlet.address, seen), daemon=True).start()
            assert arrives(outlet, inlet, message(1, torch.full((100,), 7.25))).step == 1
            outlet.socket.close(linger=0)
        assert (struct.pack("<f", 7.25) * 100 in b"".join(seen)) != guarded


def listen_in(relay, address, seen):
    host, port = address.removeprefix("tcp://").split(":")
    with relay.accept()[0] as one, socket.create_connection((host, int(port))) as other:

        def pass_on(a, b):
            try:
                while content := a.recv(1 << 16):
                    seen.append(content)
                    b.sendall(content)
                b.shutdown(socket.SHUT_WR)
            except OSError:
                pass

        threading.Thread(target=pass_on, args=(other, one), daemon=True).start()
        pass_on(one, other)


AWAY = ["tcp://0.0.0.0:*", "tcp://*:5000", "tcp://192.0.2.1:5000", "tcp://example.org:5000", "tcp://[::]:5000",
        "tcp://127.0.0.1;192.0.2.1:5000", "nowhere"]  # fmt: skip


@pytest.mark.parametrize("address", AWAY)
def test_off_loopback_keys_are_required(hubs, at, address):
    with pytest.raises(ValueError, match="off loopback and this run has no keys"):
        ZmqInlet(hubs(), address)
    with pytest.raises(ValueError, match="off loopback and this run has no keys"):
        ZmqOutlet(hubs(), address)
    outlet = ZmqOutlet(hubs(), at("ipc"))
    with pytest.raises(ValueError, match="off loopback and this run has no keys"):
        outlet.redirect(address)
    assert outlet.address == at("ipc")


@pytest.mark.parametrize("address", ["tcp://localhost:0", "tcp://127.0.0.1:0", "tcp://127.3.2.1:*"])
def test_loopback_needs_no_keys(hubs, address):
    assert ZmqInlet(hubs(), address).address.startswith("tcp://127.")


def test_with_keys_other_machines_may_connect(hubs):
    keys = Keys.generate()
    inlet = ZmqInlet(hubs(keys=keys), "tcp://0.0.0.0:*")
    port = inlet.address.rpartition(":")[2]
    outlet = ZmqOutlet(hubs(keys=keys), f"tcp://127.0.0.1:{port}")
    assert arrives(outlet, inlet, HEARTBEAT) == HEARTBEAT


# --- addresses, and the end --------------------------------------------------------------------------------


def test_an_address_in_use_is_an_error(hubs, at):
    first = ZmqInlet(hubs(), at("tcp"))
    with pytest.raises(ValueError, match=f"cannot listen at {first.address}: .*in use.*; choose another"):
        ZmqInlet(hubs(), first.address)


@pytest.mark.parametrize("address", ["ipc:///no/such/folder/inlet", "ipc:///tmp/" + 200 * "x", "tcp://127.0.0.1:x"])
def test_an_invalid_address_is_an_error(hubs, address):
    with pytest.raises(ValueError, match="cannot listen at"):
        ZmqInlet(hubs(), address)
    if "no/such" not in address:  # an inlet may still appear there
        with pytest.raises(ValueError, match="cannot send to"):
            ZmqOutlet(hubs(), address)


def test_free_ports_are_different(hubs):
    hub = hubs()
    inlets = [ZmqInlet(hub, "tcp://127.0.0.1:0") for _ in range(3)]
    assert len({inlet.address for inlet in inlets}) == 3
    assert not any(inlet.address.endswith(":0") for inlet in inlets)


@pytest.mark.parametrize("keys", [None, Keys.generate()], ids=["open", "curve"])
@pytest.mark.parametrize("place", PLACES)
def test_closing_takes_a_moment_and_leaves_no_file(hubs, at, tmp_path, place, keys):
    """Even with messages that were not read, and connections that were not answered."""
    hub, sender = hubs(keys=keys), hubs(keys=keys)
    inlet = ZmqInlet(hub, at(place))
    outlet = ZmqOutlet(sender, inlet.address)
    ZmqOutlet(sender, f"ipc://{tmp_path}/unused")
    soon(lambda: outlet.put(message(0, torch.zeros(1 << 20))))
    while outlet.put(message(1, torch.zeros(1 << 20))):
        pass
    began = time.monotonic()
    closed(sender)
    closed(hub)
    assert time.monotonic() - began < 5
    assert not list(tmp_path.iterdir())
    hub.close()  # a second time does nothing
