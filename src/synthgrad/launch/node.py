"""What a stage does in its turn, the same in a simulation and in its own process: listen, run, send, or wait."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from synthgrad.channels import Inlet, Kind, Links, Packet
from synthgrad.launch.neighbour import Neighbour
from synthgrad.launch.policy import Policy
from synthgrad.launch.told import Told, Turn
from synthgrad.stage import Stage


class Node:
    """A stage between its channels.

    Args:
        stage: what runs.
        k: its place, from 0.
        links: the ends of its channels.
        steps: of the run.
        policy: how long it waits for whom.
        generation: how often it has been started, from 1.
        now: the time, in seconds or ticks.
    """

    def __init__(
        self,
        stage: Stage,
        k: int,
        links: Links,
        steps: int,
        policy: Policy,
        generation: int = 1,
        now: Callable[[], float] = lambda: 0.0,
    ):
        if k == 0 and stage.data is None:
            raise ValueError("the first stage needs data")
        if (stage.above is None) != (links.messages_out is None):
            wanted = "a criterion, as the last one" if links.messages_out is None else "an interface above it"
            raise ValueError(f"stage {k} needs {wanted}: is it built for another number of stages?")
        self.stage, self.k, self.links, self.steps = stage, k, links, steps
        self.policy, self.generation, self.now = policy, generation, now
        self.told = Told()
        self.owed: OrderedDict[int, tuple[Tensor, Tensor | None]] = OrderedDict()
        self.outbox: deque[Packet] = deque(maxlen=policy.queue)
        self.past: deque[Packet] = deque(maxlen=policy.replay or None)
        self.below, self.above = Neighbour(policy, now), Neighbour(policy, now)
        self.taken = -1  # the last step that has come, or been lost on the way, from below
        self.put = -1  # the last step that has gone up
        self.answer: Packet | None = None  # the newest gradient that found no room
        self.forms: dict[Kind, Any] = {}
        self.spoke = -math.inf
        self.over = False
        # Nobody has waited for a stage that needs no messages: it goes on where the others are by now.
        self.late = generation > 1 and not stage.patient

    def turn(self) -> Turn:
        """Take in what has come, and make a step if that is possible."""
        self._listen()
        self._flush()
        if self.over:
            self._speak(self.policy.beat)
            return Turn.ENDED
        found = None if self._waits() else self._input()
        if found is None:
            self._speak(self.policy.beat)
            return Turn.ENDED if self.over else Turn.WAITED
        self._step(found)
        return Turn.STEPPED

    def _step(self, packet: Packet) -> None:
        """One step on a message, on this stage's own data or, where ``packet.step`` is negative, on its past."""
        stage, told, replayed = self.stage, self.told, packet.step < 0
        h, context = (*packet.tensors, None)[:2]
        stage.schedule(told.clock if replayed else packet.step)
        if stage.unlocked:
            h = stage.synthetic_input(h)
        done = stage.step(h, context, first=self.k == 0)
        told.steps += 1
        if done.loss is not None:
            told.loss = _running(told.loss, done.loss.item(), told.steps)
            if not math.isfinite(told.loss):
                raise ArithmeticError(f"the loss is {done.loss.item()} at step {packet.step}; try a lower rate")
        if replayed:  # the neighbours have had all that comes of it
            told.replayed += 1
            return
        told.clock = packet.step + 1
        self.over = told.clock >= self.steps
        with stage.timed("send"):
            if done.delta is not None:
                tensors = _without_none((done.delta, h if stage.unlocked else None))
                self._down(Packet(Kind.GRADIENT, self.k, self.generation, packet.step, tensors=tensors))
            if done.message is not None:
                self._up(done.message, context, packet.step)

    def _input(self) -> Packet | None:
        """What to run on next, or None where there is nothing."""
        stage, clock = self.stage, self.told.clock
        if self.k == 0 or stage.unlocked:
            assert stage.data is not None
            return Packet(Kind.MESSAGE, self.k, 0, clock, tensors=_without_none(stage.data(clock)))
        if (packet := self._message()) is not None:
            if self.policy.replay:
                self.past.append(packet)
            return packet
        if self.below.ended:
            self.over = True
        elif self.policy.replay and self.past and self._below_is_out():
            self.past.rotate()
            return replace(self.past[0], step=-1)
        return None

    def _message(self) -> Packet | None:
        """The next message of the present life of the stage below; words are heard on the way."""
        inlet = self.links.messages_in
        while inlet is not None and (packet := inlet.get()) is not None:
            if not self._fits(packet, self.k - 1, Kind.MESSAGE):
                self.told.refused += 1
            elif self.below.heard(packet):
                self._catch_up(packet)
                self.taken = packet.step  # a word's is the last that was sent: what has not come by now is lost
                if packet.kind is Kind.MESSAGE:
                    return packet
        return None

    def _listen(self) -> None:
        """Words and gradients from above; of several gradients the newest, since a stale one is useless."""
        newest, inlet = None, self.links.gradients_in
        while inlet is not None and (packet := inlet.get()) is not None:
            if not self._fits(packet, self.k + 1, Kind.GRADIENT):
                self.told.refused += 1
            elif self.above.heard(packet, mine=self.generation):
                self._catch_up(packet)
                if packet.kind is Kind.GRADIENT:
                    self.told.lost += newest is not None
                    newest = packet
        if newest is not None:
            self._learn(newest)
        if self.stage.unlocked:
            self._learn_input()

    def _catch_up(self, packet: Packet) -> None:
        """After a restart of a stage that nobody waits for: on to the step that a neighbour is at."""
        if self.late:
            self.late = False
            self.told.clock = min(max(self.told.clock, packet.step), self.steps - 1)

    def _learn_input(self) -> None:
        """Teach the input model the newest message."""
        newest = None
        while (packet := self._message()) is not None:
            newest = packet
        if newest is not None:
            assert self.stage.data is not None
            self.stage.learn_input(self.stage.data(newest.step)[0], newest.tensors[0])

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

    def _learn(self, packet: Packet) -> None:
        """Teach the gradient model above, if the gradient is not too old and belongs to a message that is known."""
        told, staleness = self.told, max(self.told.clock - 1 - packet.step, 0)
        if len(packet.tensors) == 2:  # the stage above ran on a synthetic input, and says on which
            h = packet.tensors[1] if Kind.GRADIENT in self.forms else None
            self.owed.pop(packet.step, None)
            context = None if self.stage.data is None else self.stage.data(packet.step)[1]
            if context is not None and h is not None and context.shape[:1] != h.shape[:1]:
                h = None
        else:
            h, context = (
                self.owed.pop(packet.step, (None, None)) if packet.echo == self.generation else (None, None)
            )
        limit = self.policy.max_staleness
        if h is None or h.shape != packet.tensors[0].shape or (limit is not None and staleness > limit):
            told.lost += 1
            return
        told.staleness = _running(told.staleness, float(staleness), told.learnt + 1)
        told.learnt += 1
        self.stage.learn(h, context, packet.tensors[0])
        told.regression_loss = self.stage.regression_loss

    @property
    def done(self) -> bool:
        """Whether it has made all its steps, and nothing of theirs is still to go or, in lockstep, to come."""
        return self.over and not self._waits()

    def _waits(self) -> bool:
        """Whether the stage above must do something first."""
        # A message that found no room is not thrown away while the stage above is alive to make some.
        full = bool(self.outbox) and self.stage.patient
        return (full or self._owes()) and not self._above_is_out()

    def _owes(self) -> bool:
        """Whether the last message must be answered first, in lockstep.

        By its gradient; where that is lost, by a word that the message was taken in, or that its receiver died.
        """
        last = next(reversed(self.owed), None)
        return self.policy.lockstep and last is not None and (bool(self.outbox) or last in self.above.under_way)

    def _up(self, h: Tensor, context: Tensor | None, step: int) -> None:
        self.forms[Kind.GRADIENT] = _form(h)
        self.owed.pop(step, None)  # thrown back by the stage below, it comes again
        self.owed[step] = (h, context)
        while len(self.owed) > self.policy.in_flight:
            self.owed.popitem(last=False)
        self.told.dropped += len(self.outbox) == self.outbox.maxlen  # which drops its oldest
        packet = Packet(Kind.MESSAGE, self.k, self.generation, step, tensors=_without_none((h, context)))
        self.outbox.append(packet)
        self._flush()

    def _flush(self) -> None:
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

    def _down(self, packet: Packet) -> None:
        self.answer = replace(packet, echo=self.below.generation, ack=self.taken)
        self._flush()

    def _speak(self, every: float) -> None:
        """A word to both neighbours, unless there has just been one."""
        if self.now() - self.spoke < every:
            return
        word = Packet(Kind.WORD, self.k, self.generation, self.told.clock - 1, ended=self.over)
        below, above = self.links.gradients_out, self.links.messages_out
        if below is not None and self.answer is None:  # a word must not overtake the answer that it acknowledges
            below.put(replace(word, echo=self.below.generation, ack=self.taken))
        if above is not None:
            above.put(replace(word, step=self.put, ended=self.over and not self.outbox))
        self.spoke = self.now()

    def waits_for(self) -> list[Inlet]:
        """Where something must come in before another turn makes sense."""
        room = self.stage.unlocked or not (self.over or self._waits())
        found = (self.links.messages_in if room else None, self.links.gradients_in)
        return [inlet for inlet in found if inlet is not None]

    def _above_is_out(self) -> bool:
        """Whether it takes in nothing: dead, hung, or at its end (and this stage thrown back by a restart)."""
        outlet = self.links.messages_out
        return outlet is not None and (self.above.ended or self.above.out(outlet.cut))

    def _below_is_out(self) -> bool:
        outlet = self.links.gradients_out
        return outlet is not None and self.below.out(outlet.cut)

    def state_dict(self) -> dict[str, Any]:
        """All that a restart needs."""
        told = {**vars(self.told), "queue": 0}
        return {"stage": self.stage.state_dict(), "told": told, "random": torch.get_rng_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a ``state_dict``."""
        self.stage.load_state_dict(state["stage"])
        self.told = Told(**state["told"])
        self.over = self.told.clock >= self.steps
        torch.set_rng_state(state["random"])


def _running(mean: float, value: float, count: int) -> float:
    """A running mean over some hundred values; a plain one at first."""
    return value if math.isnan(mean) else mean + (value - mean) / min(count, 100)


def _form(t: Tensor) -> Any:
    """What all tensors of a kind have in common, whatever the batch."""
    return t.dtype, t.shape[1:], t.dim() > 0


def _without_none(pair: tuple[Tensor, Tensor | None]) -> tuple[Tensor, ...]:
    return tuple(t for t in pair if t is not None)
