"""A channel between processes, on one machine or many: the receiver binds, the sender connects, nobody waits.

Off loopback CURVE is on: one pair of keys per run, which every stage has; a peer without it is refused and counted.
"""

from __future__ import annotations

import ipaddress
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthgrad.stages.channels.packet import Packet
from synthgrad.stages.channels.wire import HEADER, Refused, decode, encode

try:
    import zmq
    from zmq.auth.thread import ThreadAuthenticator
    from zmq.utils.monitor import recv_monitor_message
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "stages in processes need ZeroMQ: pip install 'synthgrad[stages]'", name=error.name
    ) from error

LIMIT = 1 << 30
"""Bytes of one tensor at most, unless said otherwise."""
_LOOKS = 32  # packets that are refused in one look, and events: the rest has to wait for the next


@dataclass(frozen=True)
class Keys:
    """A run's CURVE keys; they go to the stages over the launcher's own ways, never over a channel."""

    public: bytes
    secret: bytes = field(repr=False)

    @staticmethod
    def generate() -> Keys:
        """A new pair."""
        return Keys(*zmq.curve_keypair())

    def callback(self, domain: str, key: bytes) -> bool:
        """Whether a peer may come in, as pyzmq's authenticator asks it: only with the run's own key."""
        return key == self.public


class Hub:
    """What the sockets of one process share.

    Args:
        run: 16 bytes that name the run.
        keys: for CURVE; required off loopback.
        limit: bytes of one tensor at most.
    """

    def __init__(self, run: bytes, keys: Keys | None = None, limit: int = LIMIT):
        self.run, self.keys, self.limit = run, keys, limit
        self.context = zmq.Context()
        self.sockets: list[zmq.Socket[bytes]] = []  # kept until close, also where an address was wrong
        self.files: list[Path] = []  # of ipc: ZeroMQ makes them, and leaves them
        self.guard = None
        if keys is not None:
            self.guard = ThreadAuthenticator(self.context)
            self.guard.start()
            self.guard.configure_curve_callback("*", credentials_provider=keys)

    def socket(self, kind: int, address: str) -> zmq.Socket[bytes]:
        """A socket that never waits at its end, with CURVE where there are keys.

        Raises:
            ValueError: if the address is off loopback and there are no keys.
        """
        if self.keys is None and not _at_home(address):
            raise ValueError(f"{address} is off loopback and this run has no keys; give keys=Keys.generate()")
        socket = self.context.socket(kind)
        self.sockets.append(socket)
        socket.linger = 0
        if self.keys is not None:
            socket.curve_publickey, socket.curve_secretkey = self.keys.public, self.keys.secret
            if kind == zmq.PULL:
                socket.curve_server = True
            else:
                socket.curve_serverkey = self.keys.public
        return socket

    def forget(self, socket: zmq.Socket[bytes]) -> None:
        """Close a socket; what it has still to send is lost."""
        self.sockets.remove(socket)
        socket.get_monitor_socket().close(linger=0)  # the one that it has
        socket.disable_monitor()
        socket.close(linger=0)

    def wait(self, inlets: Sequence[Any], seconds: float) -> None:
        """Sleep until something comes in at one of the inlets, at most so long."""
        if not inlets:
            time.sleep(seconds)  # a poller of nothing would not wait
            return
        poller = zmq.Poller()
        for inlet in inlets:
            poller.register(inlet.socket, zmq.POLLIN)
        poller.poll(int(1000 * seconds))

    def close(self) -> None:
        """Close all sockets; what is still to be sent is lost."""
        if self.guard is not None:
            self.guard.stop()
        self.context.destroy(linger=0)
        while self.files:
            self.files.pop().unlink(missing_ok=True)


class ZmqInlet:
    """Binds to an address and takes in what comes; foreign, damaged and oversized packets are dropped and counted.

    Args:
        hub: the process' sockets.
        address: ``ipc://PATH`` or ``tcp://HOST:PORT``; port 0 or ``*`` is one that is free.
        queue: packets that may wait in the socket.

    Raises:
        ValueError: if the address is in use, or no address of this machine.
    """

    def __init__(self, hub: Hub, address: str, queue: int = 8):
        self.hub, self.refused = hub, Counter[str]()
        self.socket = hub.socket(zmq.PULL, address)
        self.socket.rcvhwm = queue
        self.socket.maxmsgsize = max(hub.limit, HEADER)
        self.monitor: Any = self.socket.get_monitor_socket(_FAILED)
        try:
            self.socket.bind(address)
        except zmq.ZMQError as error:
            raise ValueError(f"cannot listen at {address}: {error}; choose another, or end who uses it") from None
        self.address = self.socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")
        if address.startswith("ipc://"):
            hub.files.append(Path(self.address.removeprefix("ipc://")))

    def get(self) -> Packet | None:
        """The next packet of this run, or None; after some that are refused it is None, too, whatever waits."""
        for _ in range(_LOOKS):
            if not self.monitor.poll(0):
                break
            recv_monitor_message(self.monitor)
            self.refused["handshake"] += 1
        for _ in range(_LOOKS):
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return None
            try:
                return decode([frame.buffer for frame in frames], self.hub.run, self.hub.limit)
            except Refused as reason:
                self.refused[str(reason)] += 1
        return None


class ZmqOutlet:
    """Connects to an inlet's address, again and again until somebody is there.

    Args:
        hub: the process' sockets.
        address: of the inlet.
        queue: packets that may wait in the socket; with 1 ZeroMQ finds room only a millisecond after there is some.

    Raises:
        ValueError: if it is no address, or off loopback without keys.
    """

    def __init__(self, hub: Hub, address: str, queue: int = 4):
        self.hub, self.queue = hub, queue
        self._connect(address)

    def _connect(self, address: str) -> None:
        self.socket = self.hub.socket(zmq.PUSH, address)
        self.socket.sndhwm = self.queue
        self.socket.immediate = True  # nothing is queued for a neighbour that is not there
        self.socket.reconnect_ivl = 20
        self.monitor: Any = self.socket.get_monitor_socket(_CONNECTIONS)
        self._cut = False
        self.address = address
        try:
            self.socket.connect(address)
        except zmq.ZMQError as error:
            raise ValueError(f"cannot send to {address}: {error}; choose another") from None

    @property
    def cut(self) -> bool:
        """Whether there was a connection, and is none."""
        while self.monitor.poll(0):
            self._cut = int(recv_monitor_message(self.monitor)["event"]) != zmq.Event.HANDSHAKE_SUCCEEDED
        return self._cut

    def put(self, packet: Packet) -> bool:
        """Send, if there is somebody who has room.

        Raises:
            ValueError: if a tensor is larger than the receiver lets in.
        """
        if (largest := max((t.nbytes for t in packet.tensors), default=0)) > self.hub.limit:
            raise ValueError(f"cannot send a tensor of {largest} bytes: the limit is {self.hub.limit}; raise it")
        if self.cut:  # the socket takes a few more until it has seen it, too
            return False
        try:
            self.socket.send_multipart(encode(packet, self.hub.run), zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return False
        return True

    def redirect(self, address: str) -> None:
        """From now on to another address."""
        if address != self.address:
            # A new socket: after disconnect() the old one would still take, for a moment, what then is lost.
            old = self.socket
            self._connect(address)
            self.hub.forget(old)


_FAILED = (
    zmq.Event.HANDSHAKE_FAILED_AUTH | zmq.Event.HANDSHAKE_FAILED_NO_DETAIL | zmq.Event.HANDSHAKE_FAILED_PROTOCOL
)
_CONNECTIONS = zmq.Event.HANDSHAKE_SUCCEEDED | zmq.Event.DISCONNECTED


def _at_home(address: str) -> bool:
    kind, _, place = address.partition("://")
    if kind in ("ipc", "inproc"):
        return True
    host = place.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
