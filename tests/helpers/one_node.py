"""A node, with the far ends of its channels for the test."""

import math
from dataclasses import replace

import torch

from synthgrad.stages import Policy
from synthgrad.stages.channels import Links, Packet, PacketKind
from synthgrad.stages.channels.in_process import Queue
from synthgrad.stages.node import Node
from tests.helpers import chains

F64 = torch.float64
STEPS = 100


class Clock:
    time = 0.0

    def __call__(self):
        return self.time


class Bench:
    """A node, with the far ends of its channels for the test."""

    def __init__(self, k=1, generation=1, stage=None, complete=False, **policy):
        self.now = Clock()
        self.up_in, self.down_out, self.up_out, self.down_in = (Queue(self.now) for _ in range(4))
        links = Links(
            messages_in=self.up_in if k > 0 else None,
            gradients_out=self.down_out if k > 0 else None,
            messages_out=self.up_out if k < 2 else None,
            gradients_in=self.down_in if k < 2 else None,
        )
        # No neighbour is down because of silence: the tests cut connections themselves.
        policy = {"silence_timeout": math.inf, "heartbeat_interval": 0.0, **policy}
        built = primed(stage or chains.build(k, complete=complete))
        self.node = Node(built, k, links, STEPS, Policy(**policy), generation, self.now)
        self.k, self.counters = k, self.node.counters

    def message(self, number, generation=1, **changes):
        h, y = chains.data(number)
        packet = Packet(PacketKind.MESSAGE, self.k - 1, generation, number, tensors=(h.tanh(), y))
        self.up_in.put(replace(packet, **changes))

    def gradient(self, number, generation=1, echo=1, **changes):
        delta = torch.full((chains.BATCH, chains.WIDTH), 0.1 * (number + 1), dtype=F64)
        packet = Packet(PacketKind.GRADIENT, self.k + 1, generation, number, echo, number, tensors=(delta,))
        self.down_in.put(replace(packet, **changes))

    def heartbeat_below(self, generation=1, **changes):
        self.up_in.put(Packet(PacketKind.HEARTBEAT, self.k - 1, generation, **changes))

    def heartbeat_above(self, generation=1, **changes):
        self.down_in.put(Packet(PacketKind.HEARTBEAT, self.k + 1, generation, **changes))

    def turn(self):
        self.now.time += 1
        return self.node.turn()

    def sent_up(self):
        return [packet for packet in iter(self.up_out.get, None) if packet.kind is PacketKind.MESSAGE]

    def sent_down(self):
        return [packet for packet in iter(self.down_out.get, None) if packet.kind is PacketKind.GRADIENT]

    def model(self):
        return [p.detach().clone() for p in self.node.stage.above.gradient_model.parameters()]


def steps(packets):
    return [packet.step for packet in packets]


def primed(stage):
    """The stage after one gradient: before the first one its gradient model has no unit, and teaches nothing."""
    if stage.above is not None:
        stage.learn(torch.ones(8, 5, dtype=F64), chains.data(0)[1], torch.full((8, 5), 0.25, dtype=F64))
    return stage
