"""A stage's post: what comes from its neighbours, and what goes to them, in the order that they rely on."""

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

_log = logging.getLogger(__name__)
IN_A_ROW = 10
"""So many packets, or steps, that come to nothing one after the other are an error, not an accident."""


class Post:
    """Takes in what fits, keeps what finds no room, and says a word where there is nothing else to say.

    Args:
        k: the stage's place, from 0.
        links: the ends of its channels.
        steps: of the run.
        policy: how much may wait.
        generation: how often the stage has been started, from 1.
        now: the time.
        told: where the post counts what it refuses, drops and keeps.
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
        self.answer: Packet | None = None  # the newest gradient that found no room
        self.taken = -1  # the last step that has come, or been lost on the way, from below
        self.put = -1  # the last step that has gone up
        self.furthest = -1  # the last step that any neighbour has spoken of
        self.forms: dict[PacketKind, Any] = {}
        self.refused_in_a_row = 0
        self.spoke = -math.inf
        self.words: dict[bool, Packet] = {}  # the last that has gone up (True) and down: a beat says them again
        self.lock = threading.RLock()  # of what goes out

    def message(self) -> Packet | None:
        """The next message of the present life of the stage below; words are heard on the way."""
        for packet in self._coming(self.links.messages_in, self.k - 1, PacketKind.MESSAGE):
            if self.below.heard(packet):
                self.furthest = max(self.furthest, packet.step)
                self.taken = packet.step  # a word's is the last that was sent: what has not come by now is lost
                if packet.kind is PacketKind.MESSAGE:
                    return packet
        return None

    def gradients(self) -> Iterator[Packet]:
        """The gradients of the present life of the stage above that have come; words are heard on the way."""
        for packet in self._coming(self.links.gradients_in, self.k + 1, PacketKind.GRADIENT):
            if self.above.heard(packet, mine=self.generation):
                self.furthest = max(self.furthest, packet.step)
                if packet.kind is PacketKind.GRADIENT:
                    yield packet

    def _coming(self, inlet: Inlet | None, stage: int, kind: PacketKind) -> Iterator[Packet]:
        while inlet is not None and (packet := inlet.get()) is not None:
            if why := self._unfit(packet, stage, kind):
                self.refuse(packet, why)
            else:
                yield packet

    def refuse(self, packet: Packet, why: str) -> None:
        """Count a packet of this run that this stage cannot use, and say so once.

        Raises:
            ValueError: if that goes on and on.
        """
        self.counters.refused += 1
        self.refused_in_a_row += 1
        came = ", ".join(f"{t.dtype} {tuple(t.shape)}" for t in packet.tensors) or "no tensor"
        text = f"stage {self.k} cannot use a {packet.kind.name.lower()} of stage {packet.stage} ({came}): {why}"
        if self.refused_in_a_row >= IN_A_ROW:
            raise ValueError(f"{text}; nor the {IN_A_ROW - 1} before it: do the two stages fit each other?")
        if self.counters.refused == 1:
            _log.warning("%s; it is refused and counted", text)

    def used(self) -> None:
        """What came could be used."""
        self.refused_in_a_row = 0

    def _unfit(self, packet: Packet, stage: int, kind: PacketKind) -> str:
        """Why a packet cannot be what that neighbour sends; whatever it is, it must not end this stage.

        Sizes may vary from step to step, batch, sequence length or image size. Whether the stage's part can use
        them is seen when it runs, whether a gradient has those of its own message when it teaches.
        """
        if packet.stage != stage or packet.kind not in (kind, PacketKind.HEARTBEAT):
            return "it is none of the neighbour's"
        if packet.kind is PacketKind.HEARTBEAT:
            return "a word has no tensors" if packet.tensors else ""
        if not packet.tensors or not 0 <= packet.step < self.steps:
            return f"it has no tensors, or step {packet.step} of {self.steps}"
        if kind is PacketKind.GRADIENT:  # like the messages that went up; before the first nobody can say
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
    def begun(self) -> bool:
        """Whether a message has gone up, so that it is known what its gradients look like."""
        return PacketKind.GRADIENT in self.forms

    def up(self, packet: Packet) -> None:
        """Send a message to the stage above, as soon as there is room."""
        if packet.tensors:
            self.forms[PacketKind.GRADIENT] = _form(packet.tensors[0])
        with self.lock:
            # Full, it drops its oldest.
            self.counters.dropped += (
                len(self.outbox) == self.outbox.maxlen and self.outbox[0].kind is PacketKind.MESSAGE
            )
            self.outbox.append(packet)
        self.flush()

    def skip(self, step: int) -> None:
        """Tell the stage above that no message of this step will come, in its place among the others."""
        if self.links.messages_out is not None:
            self.up(Packet(PacketKind.HEARTBEAT, self.k, self.generation, step))

    def down(self, packet: Packet) -> None:
        """Send a gradient to the stage below, as soon as there is room; a newer one takes its place."""
        with self.lock:
            self.answer = replace(packet, echo=self.below.generation, ack=self.taken)
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as there is room."""
        with self.lock:
            outlet = self.links.messages_out
            while outlet is not None and self.outbox and self.above.room(self.policy.queue):
                if not outlet.put(self.outbox[0]):
                    break
                sent = self.outbox.popleft()
                self.put = sent.step
                if sent.kind is PacketKind.MESSAGE:
                    self.above.under_way.append(sent.step)
            self.counters.queue = len(self.outbox) + len(self.above.under_way)
            outlet = self.links.gradients_out
            if outlet is not None and self.answer is not None and outlet.put(self.answer):
                self.words[False] = replace(self.answer, kind=PacketKind.HEARTBEAT, tensors=())
                self.answer, self.spoke = None, self.now()

    def speak(self, every: float, step: int, ended: bool) -> None:
        """A word to both neighbours, unless there has just been one.

        Args:
            every: least time between two words.
            step: the last that the stage has made.
            ended: whether that was its last one.
        """
        if self.now() - self.spoke < every:
            return
        word = Packet(PacketKind.HEARTBEAT, self.k, self.generation, step, ended=ended)
        below, above = self.links.gradients_out, self.links.messages_out
        with self.lock:
            if below is not None and self.answer is None:  # no word overtakes the answer that it acknowledges
                self.words[False] = replace(word, echo=self.below.generation, ack=self.taken)
                below.put(self.words[False])
            if above is not None:
                self.words[True] = replace(word, step=self.put, ended=ended and not self.outbox)
                above.put(self.words[True])
        self.spoke = self.now()

    def heartbeat_interval(self) -> None:
        """The last words again, from another thread while a step takes its time: this stage is alive.

        They say nothing new: what a stage has in its hands is not acknowledged before it is done.
        """
        with self.lock:
            below, above = self.links.gradients_out, self.links.messages_out
            if below is not None and (word := self.words.get(False)) is not None:
                below.put(word)
            if above is not None and (word := self.words.get(True)) is not None:
                above.put(replace(word, step=self.put))

    @property
    def above_is_out(self) -> bool:
        """Whether the stage above takes in nothing: dead, hung, or at its end (and this one thrown back)."""
        outlet = self.links.messages_out
        with self.lock:
            return outlet is not None and (self.above.ended or self.above.out(outlet.cut))

    @property
    def below_is_out(self) -> bool:
        """Whether the stage below sends nothing: dead or hung."""
        outlet = self.links.gradients_out
        with self.lock:
            return outlet is not None and self.below.out(outlet.cut)


def _form(t: Tensor) -> Any:
    """What all tensors of a kind have in common, whatever their sizes."""
    return t.dtype, t.dim()
