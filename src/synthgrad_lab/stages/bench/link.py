"""How long a packet takes from one process to another."""

from __future__ import annotations

import statistics
import time
from functools import partial
from multiprocessing import get_context
from tempfile import TemporaryDirectory
from timeit import repeat

import torch

from synthgrad.stages.channels import Packet, PacketKind
from synthgrad.stages.channels.zeromq import Hub, ZmqInlet, ZmqOutlet
from synthgrad_lab.running.jsonl import Row

REPEATS, TRIPS = 7, 100
"""Measurements of a packet's time, of which the median is taken; round trips of each."""


def bench_links() -> list[Row]:
    """Measure the time that a packet takes to another process: rows of ``bytes, hop_ms``."""
    return [{"bytes": size, "hop_ms": 1000 * one_way(size)} for size in (256 << 10, 4 << 20)]


def one_way(size: int) -> float:
    """Seconds for a tensor of that many bytes: half a round trip, with the making and reading of packets."""
    with TemporaryDirectory(prefix="synthgrad-") as folder:
        process = get_context("forkserver").Process(target=_echo, args=(folder,), daemon=True)
        process.start()
        hub = Hub(bytes(16))
        try:
            inlet, outlet = ZmqInlet(hub, f"ipc://{folder}/home"), ZmqOutlet(hub, f"ipc://{folder}/away")
            packet = Packet(PacketKind.MESSAGE, 0, 1, 0, tensors=(torch.randn(size // 4),))
            trip = partial(_trip, hub, inlet, outlet, packet)
            trip(30.0)
            for _ in range(10):
                trip()
            return statistics.median(repeat(trip, repeat=REPEATS, number=TRIPS)) / TRIPS / 2
        finally:
            process.kill()
            process.join()
            hub.close()


def _trip(hub: Hub, inlet: ZmqInlet, outlet: ZmqOutlet, packet: Packet, limit: float = 5.0) -> None:
    deadline = time.monotonic() + limit
    while not outlet.put(packet) and time.monotonic() < deadline:
        time.sleep(0.001)
    while inlet.get() is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"the other process has not answered within {limit:g} s")
        hub.wait([inlet], 0.1)


def _echo(folder: str) -> None:
    hub = Hub(bytes(16))
    inlet, outlet = ZmqInlet(hub, f"ipc://{folder}/away"), ZmqOutlet(hub, f"ipc://{folder}/home")
    while True:
        if (packet := inlet.get()) is None:
            hub.wait([inlet], 1.0)
        else:
            while not outlet.put(packet):
                time.sleep(0.0005)
