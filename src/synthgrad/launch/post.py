"""A stage's post: what comes from its neighbours, and what goes to them, in the order that they rely on."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from torch import Tensor

from synthgrad.channels import Inlet, Kind, Links, Packet
from synthgrad.launch.neighbour import Neighbour
from synthgrad.launch.policy import Policy
from synthgrad.launch.told import Told


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
        told: Told,
    ):
        self.k, self.links, self.steps, self.policy = k, links, steps, policy
        self.generation, self.now, self.told = generation, now, told
        self.below, self.above = Neighbour(policy, now), Neighbour(policy, now)
        self.outbox: deque[Packet] = deque(maxlen=policy.queue)
        self.answer: Packet | None = None  # the newest gradient that found no room
        self.taken = -1  # the last step that has come, or been lost on the way, from below
        self.put = -1  # the last step that has gone up
        self.furthest = -1  # the last step that any neighbour has spoken of
        self.forms: dict[Kind, Any] = {}
        self.spoke = -math.inf

    def message(self) -> Packet | None:
        """The next message of the present life of the stage below; words are heard on the way."""
        for packet in self._coming(self.links.messages_in, self.k - 1, Kind.MESSAGE):
            if self.below.heard(packet):
                self.furthest = max(self.furthest, packet.step)
                self.taken = packet.step  # a word's is the last that was sent: what has not come by now is lost
                if packet.kind is Kind.MESSAGE:
                    return packet
        return None

    def gradients(self) -> Iterator[Packet]:
        """The gradients of the present life of the stage above that have come; words are heard on the way."""
        for packet in self._coming(self.links.gradients_in, self.k + 1, Kind.GRADIENT):
            if self.above.heard(packet, mine=self.generation):
                self.furthest = max(self.furthest, packet.step)
                if packet.kind is Kind.GRADIENT:
                    yield packet

    def _coming(self, inlet: Inlet | None, stage: int, kind: Kind) -> Iterator[Packet]:
        while inlet is not None and (packet := inlet.get()) is not None:
            if self._fits(packet, stage, kind):
                yield packet
            else:
                self.told.refused += 1

    def _fits(self, packet: Packet, stage: int, kind: Kind) -> bool:
        """Whether a packet can be what that neighbour sends; whatever it is, it must not end this stage."""
        if packet.stage != stage or packet.kind not in (kind, Kind.WORD):
            return False
        if packet.kind is Kind.WORD:
            return not packet.tensors
        if not packet.tensors or not 0 <= packet.step < self.steps:
            return False
        if kind is Kind.GRADIENT:  # like the messages that went up; before the first nobody can say
            return all(_form(t) == self.forms.get(kind, _form(t)) for t in packet.tensors)
        h, *rest = packet.tensors
        if h.dim() == 0 or not h.is_floating_point():
            return False
        form = [_form(h), *((_form(t), t.shape[:1] == h.shape[:1]) for t in rest)]
        return form == self.forms.setdefault(kind, form)

    @property
    def begun(self) -> bool:
        """Whether a message has gone up, so that it is known what its gradients look like."""
        return Kind.GRADIENT in self.forms

    def up(self, packet: Packet) -> None:
        """Send a message to the stage above, as soon as there is room."""
        self.forms[Kind.GRADIENT] = _form(packet.tensors[0])
        self.told.dropped += len(self.outbox) == self.outbox.maxlen  # which drops its oldest
        self.outbox.append(packet)
        self.flush()

    def down(self, packet: Packet) -> None:
        """Send a gradient to the stage below, as soon as there is room; a newer one takes its place."""
        self.answer = replace(packet, echo=self.below.generation, ack=self.taken)
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as there is room."""
        outlet = self.links.messages_out
        while outlet is not None and self.outbox and self.above.room(self.policy.queue):
            if not outlet.put(self.outbox[0]):
                break
            self.put = self.outbox.popleft().step
            self.above.under_way.append(self.put)
        self.told.queue = len(self.outbox) + len(self.above.under_way)
        outlet = self.links.gradients_out
        if outlet is not None and self.answer is not None and outlet.put(self.answer):
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
        word = Packet(Kind.WORD, self.k, self.generation, step, ended=ended)
        below, above = self.links.gradients_out, self.links.messages_out
        if below is not None and self.answer is None:  # a word must not overtake the answer that it acknowledges
            below.put(replace(word, echo=self.below.generation, ack=self.taken))
        if above is not None:
            above.put(replace(word, step=self.put, ended=ended and not self.outbox))
        self.spoke = self.now()

    @property
    def above_is_out(self) -> bool:
        """Whether the stage above takes in nothing: dead, hung, or at its end (and this one thrown back)."""
        outlet = self.links.messages_out
        return outlet is not None and (self.above.ended or self.above.out(outlet.cut))

    @property
    def below_is_out(self) -> bool:
        """Whether the stage below sends nothing: dead or hung."""
        outlet = self.links.gradients_out
        return outlet is not None and self.below.out(outlet.cut)


def _form(t: Tensor) -> Any:
    """What all tensors of a kind have in common, whatever the batch."""
    return t.dtype, t.shape[1:], t.dim() > 0
