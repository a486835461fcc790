"""A stage's mailbox: checks the packets from its neighbours, and queues the packets to them."""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from torch import Tensor

from synthgrad.stages.channels import Inlet, Links, Packet, PacketKind
from synthgrad.stages.counters import Counters
from synthgrad.stages.neighbour import Neighbour
from synthgrad.stages.policy import Policy

_log = logging.getLogger("synthgrad.stages")
IN_A_ROW = 10
"""This many unusable packets, or steps that are not finite, in a row are an error and no accident."""


class Mailbox:
    """Validates incoming packets, queues outgoing ones, sends heartbeats when idle.

    Args:
        k: the stage's place, from 0.
        links: the stage's ends of its channels.
        steps: of the run.
        policy: how many messages may wait.
        generation: how often the stage has been started, from 1.
        now: the time.
        counters: count the packets that are refused, dropped or queued.
    """

    def __init__(
        self,
        k: int,
        links: Links,
        steps: int,
        policy: Policy,
        generation: int,
        now: Callable[[], float],
        counters: Counters,
    ):
        self.k, self.links, self.steps, self.policy = k, links, steps, policy
        self.generation, self.now, self.counters = generation, now, counters
        self.below, self.above = Neighbour(policy, now), Neighbour(policy, now)
        self.outbox: deque[Packet] = deque(maxlen=policy.queue)
        self.unsent_gradient: Packet | None = None  # the newest one that found no room
        self.last_received = -1  # the last step from below that has come, or has been lost on the way
        self.last_sent = -1  # the last step that has gone up
        self.furthest_seen = -1  # the largest step in any packet of a neighbour
        self.forms: dict[PacketKind, Any] = {}
        self.refused_in_a_row = 0
        self.last_spoke = -math.inf
        self.heartbeat_up: Packet | None = None  # the last heartbeats, for repeat_heartbeats
        self.heartbeat_down: Packet | None = None
        self.lock = threading.RLock()  # guards everything that goes out

    def next_message(self) -> Packet | None:
        """The next valid message from below; reads the heartbeats before it."""
        for packet in self._usable(self.links.messages_in, self.k - 1, PacketKind.MESSAGE):
            if self.below.observe(packet):
                self.furthest_seen = max(self.furthest_seen, packet.step)
                # A heartbeat has the step that was sent last: a message that has not come by now is lost.
                self.last_received = packet.step
                if packet.kind is PacketKind.MESSAGE:
                    return packet
        return None

    def new_gradients(self) -> Iterator[Packet]:
        """The valid gradients that have come from above; reads the heartbeats among them."""
        for packet in self._usable(self.links.gradients_in, self.k + 1, PacketKind.GRADIENT):
            if self.above.observe(packet, own_generation=self.generation):
                self.furthest_seen = max(self.furthest_seen, packet.step)
                if packet.kind is PacketKind.GRADIENT:
                    yield packet

    def _usable(self, inlet: Inlet | None, stage: int, kind: PacketKind) -> Iterator[Packet]:
        while inlet is not None and (packet := inlet.get()) is not None:
            if why := self._why_unusable(packet, stage, kind):
                self.refuse(packet, why)
            else:
                yield packet

    def refuse(self, packet: Packet, why: str) -> None:
        """Count a packet of this run that this stage cannot use; the first one is logged.

        Raises:
            ValueError: if it is the ``IN_A_ROW``-th in a row.
        """
        self.counters.refused += 1
        self.refused_in_a_row += 1
        came = ", ".join(f"{t.dtype} {tuple(t.shape)}" for t in packet.tensors) or "no tensor"
        text = f"stage {self.k} cannot use a {packet.kind.name.lower()} of stage {packet.stage} ({came}): {why}"
        if self.refused_in_a_row >= IN_A_ROW:
            raise ValueError(f"{text}; nor the {IN_A_ROW - 1} before it: do the two stages fit each other?")
        if self.counters.refused == 1:
            _log.warning("%s; it is refused and counted", text)

    def note_usable(self) -> None:
        """Start the count of refused packets in a row again: one could be used."""
        self.refused_in_a_row = 0

    def _why_unusable(self, packet: Packet, stage: int, kind: PacketKind) -> str:
        """Why a packet cannot have come from that neighbour, or nothing; no packet may end this stage.

        Sizes may vary from step to step (batch, sequence length, image size). Whether the part can take them is
        found out when it runs, and whether a gradient has the sizes of its own message when it teaches.
        """
        if packet.stage != stage or packet.kind not in (kind, PacketKind.HEARTBEAT):
            return "this neighbour does not send it"
        if packet.kind is PacketKind.HEARTBEAT:
            return "a heartbeat has no tensors" if packet.tensors else ""
        if not packet.tensors or not 0 <= packet.step < self.steps:
            return f"it has no tensors, or step {packet.step} of {self.steps}"
        if kind is PacketKind.GRADIENT:  # of the same form as the messages; before the first that is unknown
            wanted = self.forms.get(kind)
            fits = wanted is None or all(_form(t) == wanted for t in packet.tensors)
        else:
            h, *_ = packet.tensors
            if h.dim() == 0 or not h.is_floating_point():
                return "a message is a batch of floating-point numbers"
            form = [_form(t) for t in packet.tensors]
            wanted = self.forms.setdefault(kind, form)
            fits = form == wanted
        return "" if fits else f"dtype and number of dimensions must stay as they were: {wanted}"

    @property
    def has_sent(self) -> bool:
        """Whether a message has gone up, so that the form of its gradient is known."""
        return PacketKind.GRADIENT in self.forms

    def send_message(self, packet: Packet) -> None:
        """Queue a packet for the stage above; a full queue drops its oldest."""
        if packet.tensors:
            self.forms[PacketKind.GRADIENT] = _form(packet.tensors[0])
        with self.lock:
            full = len(self.outbox) == self.outbox.maxlen
            self.counters.dropped += full and self.outbox[0].kind is PacketKind.MESSAGE
            self.outbox.append(packet)
        self.flush()

    def send_no_message(self, step: int) -> None:
        """Report to the stage above, in order, that this step has no message."""
        if self.links.messages_out is not None:
            self.send_message(Packet(PacketKind.HEARTBEAT, self.k, self.generation, step))

    def send_gradient(self, packet: Packet) -> None:
        """Send a gradient to the stage below as soon as there is room; it replaces an older one that waits."""
        with self.lock:
            self.unsent_gradient = replace(packet, echo=self.below.generation, ack=self.last_received)
        self.flush()

    def flush(self) -> None:
        """Send the packets that wait, as far as there is room."""
        with self.lock:
            outlet = self.links.messages_out
            while outlet is not None and self.outbox and self.above.has_room(self.policy.queue):
                if not outlet.put(self.outbox[0]):
                    break
                sent = self.outbox.popleft()
                self.last_sent = sent.step
                if sent.kind is PacketKind.MESSAGE:
                    self.above.unreceived.append(sent.step)
            self.counters.queue = len(self.outbox) + len(self.above.unreceived)
            outlet, gradient = self.links.gradients_out, self.unsent_gradient
            if outlet is not None and gradient is not None and outlet.put(gradient):
                self.heartbeat_down = replace(gradient, kind=PacketKind.HEARTBEAT, tensors=())
                self.unsent_gradient, self.last_spoke = None, self.now()

    def send_heartbeats(self, interval: float, step: int, ended: bool) -> None:
        """Send a heartbeat to both neighbours, unless a packet went out less than ``interval`` ago.

        Args:
            interval: the least time between two heartbeats.
            step: the last step that the stage has made.
            ended: whether that was its last one.
        """
        if self.now() - self.last_spoke < interval:
            return
        heartbeat = Packet(PacketKind.HEARTBEAT, self.k, self.generation, step, ended=ended)
        below, above = self.links.gradients_out, self.links.messages_out
        with self.lock:
            # No heartbeat overtakes the gradient that it acknowledges.
            if below is not None and self.unsent_gradient is None:
                self.heartbeat_down = replace(heartbeat, echo=self.below.generation, ack=self.last_received)
                below.put(self.heartbeat_down)
            if above is not None:
                self.heartbeat_up = replace(heartbeat, step=self.last_sent, ended=ended and not self.outbox)
                above.put(self.heartbeat_up)
        self.last_spoke = self.now()

    def repeat_heartbeats(self) -> None:
        """Send the last heartbeats again, from another thread while a step takes long: this stage is alive.

        They acknowledge nothing new: the message of a step counts as received when the step is done.
        """
        with self.lock:
            below, above = self.links.gradients_out, self.links.messages_out
            if below is not None and self.heartbeat_down is not None:
                below.put(self.heartbeat_down)
            if above is not None and self.heartbeat_up is not None:
                above.put(replace(self.heartbeat_up, step=self.last_sent))

    @property
    def above_is_down(self) -> bool:
        """Whether the stage above receives nothing more: it is dead, hung, or has ended."""
        outlet = self.links.messages_out
        with self.lock:
            return outlet is not None and (self.above.ended or self.above.is_down(outlet.cut))

    @property
    def below_is_down(self) -> bool:
        """Whether the stage below sends nothing more: it is dead or hung."""
        outlet = self.links.gradients_out
        with self.lock:
            return outlet is not None and self.below.is_down(outlet.cut)


def _form(t: Tensor) -> Any:
    """A tensor's dtype and number of dimensions, which stay the same from step to step."""
    return t.dtype, t.dim()
