"""How long a packet takes from one process to another."""

from __future__ import annotations

import statistics
import time
from multiprocessing import get_context
from tempfile import TemporaryDirectory

import torch

from synthgrad.stages.channels import Packet, PacketKind
from synthgrad.stages.channels.zeromq import Hub, ZmqInlet, ZmqOutlet

_RUN = bytes(16)


def one_way(size: int, repeats: int = 7, rounds: int = 100) -> float:
    """Seconds from one process to another: half a round trip, with the making and reading of packets.

    Args:
        size: bytes of the packet's tensor.
        repeats: measurements; the median is returned.
        rounds: round trips of each measurement.
    """
    with TemporaryDirectory(prefix="synthgrad-") as folder:
        process = get_context("forkserver").Process(target=_echo, args=(folder,), daemon=True)
        process.start()
        hub = Hub(_RUN)
        try:
            inlet, outlet = ZmqInlet(hub, f"ipc://{folder}/home"), ZmqOutlet(hub, f"ipc://{folder}/away")
            packet = Packet(PacketKind.MESSAGE, 0, 1, 0, tensors=(torch.randn(size // 4),))
            _trip(hub, inlet, outlet, packet, 30.0)
            for _ in range(10):
                _trip(hub, inlet, outlet, packet, 5.0)
            return statistics.median(_measure(hub, inlet, outlet, packet, rounds) for _ in range(repeats))
        finally:
            process.kill()
            process.join()
            hub.close()


def _measure(hub: Hub, inlet: ZmqInlet, outlet: ZmqOutlet, packet: Packet, rounds: int) -> float:
    began = time.perf_counter()
    for _ in range(rounds):
        _trip(hub, inlet, outlet, packet, 5.0)
    return (time.perf_counter() - began) / rounds / 2


def _trip(hub: Hub, inlet: ZmqInlet, outlet: ZmqOutlet, packet: Packet, limit: float) -> None:
    deadline = time.monotonic() + limit
    while not outlet.put(packet) and time.monotonic() < deadline:
        time.sleep(0.001)
    while inlet.get() is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"the other process has not answered within {limit:g} s")
        hub.wait([inlet], 0.1)


def _echo(folder: str) -> None:
    hub = Hub(_RUN)
    inlet, outlet = ZmqInlet(hub, f"ipc://{folder}/away"), ZmqOutlet(hub, f"ipc://{folder}/home")
    while True:
        if (packet := inlet.get()) is None:
            hub.wait([inlet], 1.0)
        else:
            while not outlet.put(packet):
                time.sleep(0.0005)
