"""A channel between processes, on one machine or many: the receiver binds, the sender connects, neither waits.

Connections to other machines are encrypted and authenticated (CURVE). All stages of a run share one pair of keys; a
peer without it is refused and counted.
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
"""The default for the most bytes of one tensor."""
_MOST_REFUSED = 32  # packets, and handshakes, that one call of get() refuses: junk must not hold up the stage


@dataclass(frozen=True)
class Keys:
    """A run's CURVE keys; the launcher hands them to the stages' processes, they are never sent over a channel."""

    public: bytes
    secret: bytes = field(repr=False)

    @staticmethod
    def generate() -> Keys:
        """Make a new pair."""
        return Keys(*zmq.curve_keypair())

    def callback(self, domain: str, key: bytes) -> bool:
        """Whether a peer may connect: only with the run's own key. pyzmq's authenticator calls this."""
        return key == self.public


class Hub:
    """Owns the sockets of one process.

    Args:
        run: 16 bytes that identify the run.
        keys: for CURVE; required for addresses off loopback.
        limit: the most bytes of one tensor.
    """

    def __init__(self, run: bytes, keys: Keys | None = None, limit: int = LIMIT):
        self.run, self.keys, self.limit = run, keys, limit
        self.context = zmq.Context()
        self.sockets: list[zmq.Socket[bytes]] = []  # closed with the hub, also if an address was wrong
        self.files: list[Path] = []  # of ipc addresses: ZeroMQ does not remove them
        self.authenticator = None
        if keys is not None:
            self.authenticator = ThreadAuthenticator(self.context)
            self.authenticator.start()
            self.authenticator.configure_curve_callback("*", credentials_provider=keys)

    def socket(self, kind: int, address: str) -> zmq.Socket[bytes]:
        """Make a socket that closes without waiting, with CURVE if there are keys.

        Raises:
            ValueError: if the address is off loopback and there are no keys.
        """
        if self.keys is None and not _is_local(address):
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

    def close_socket(self, socket: zmq.Socket[bytes]) -> None:
        """Close a socket; packets that it has not sent yet are lost."""
        self.sockets.remove(socket)
        socket.get_monitor_socket().close(linger=0)  # returns the existing one
        socket.disable_monitor()
        socket.close(linger=0)

    def wait(self, inlets: Sequence[Any], seconds: float) -> None:
        """Sleep until a packet comes in at one of the inlets, for at most some seconds."""
        if not inlets:
            time.sleep(seconds)  # a poller without sockets would return at once
            return
        poller = zmq.Poller()
        for inlet in inlets:
            poller.register(inlet.socket, zmq.POLLIN)
        poller.poll(int(1000 * seconds))

    def close(self) -> None:
        """Close all sockets; packets that they have not sent yet are lost."""
        if self.authenticator is not None:
            self.authenticator.stop()
        self.context.destroy(linger=0)
        while self.files:
            self.files.pop().unlink(missing_ok=True)


class ZmqInlet:
    """Binds to an address and receives packets; foreign, damaged and oversized ones are dropped and counted.

    Args:
        hub: the process' sockets.
        address: ``ipc://PATH`` or ``tcp://HOST:PORT``; port 0 or ``*`` chooses a free one.
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
            raise ValueError(
                f"cannot listen at {address}: {error}; choose another, or end the process that uses it"
            ) from None
        self.address = self.socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")
        if address.startswith("ipc://"):
            hub.files.append(Path(self.address.removeprefix("ipc://")))

    def get(self) -> Packet | None:
        """The next packet of this run; None if there is none, or after ``_MOST_REFUSED`` others were refused."""
        for _ in range(_MOST_REFUSED):
            if not self.monitor.poll(0):
                break
            recv_monitor_message(self.monitor)
            self.refused["handshake"] += 1
        for _ in range(_MOST_REFUSED):
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
    """Connects to an inlet's address, and tries again until an inlet is there.

    Args:
        hub: the process' sockets.
        address: of the inlet.
        queue: packets that may wait in the socket; with 1, ZeroMQ notices free room only after a millisecond.

    Raises:
        ValueError: if the address is not valid, or is off loopback and there are no keys.
    """

    def __init__(self, hub: Hub, address: str, queue: int = 4):
        self.hub, self.queue = hub, queue
        self._connect(address)

    def _connect(self, address: str) -> None:
        self.socket = self.hub.socket(zmq.PUSH, address)
        self.socket.sndhwm = self.queue
        self.socket.immediate = True  # queue nothing while the neighbour is not connected
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
        """Whether there was a connection, and it has ended."""
        while self.monitor.poll(0):
            self._cut = int(recv_monitor_message(self.monitor)["event"]) != zmq.Event.HANDSHAKE_SUCCEEDED
        return self._cut

    def put(self, packet: Packet) -> bool:
        """Send a packet, if the neighbour is connected and has room.

        Returns:
            Whether it was sent.

        Raises:
            ValueError: if a tensor is larger than the receiver accepts.
        """
        if (largest := max((t.nbytes for t in packet.tensors), default=0)) > self.hub.limit:
            raise ValueError(f"cannot send a tensor of {largest} bytes: the limit is {self.hub.limit}; raise it")
        if self.cut:  # the socket itself would accept a few more packets, which would be lost
            return False
        try:
            self.socket.send_multipart(encode(packet, self.hub.run), zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return False
        return True

    def redirect(self, address: str) -> None:
        """Send to another address from now on."""
        if address != self.address:
            # A new socket: after disconnect() the old one would accept packets for a moment, and lose them.
            old = self.socket
            self._connect(address)
            self.hub.close_socket(old)


_FAILED = (
    zmq.Event.HANDSHAKE_FAILED_AUTH | zmq.Event.HANDSHAKE_FAILED_NO_DETAIL | zmq.Event.HANDSHAKE_FAILED_PROTOCOL
)
_CONNECTIONS = zmq.Event.HANDSHAKE_SUCCEEDED | zmq.Event.DISCONNECTED


def _is_local(address: str) -> bool:
    """Whether only processes of this machine can connect to an address."""
    kind, _, place = address.partition("://")
    if kind in ("ipc", "inproc"):
        return True
    host = place.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
