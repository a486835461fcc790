"""What a stage does in its turn, the same in a simulation and in its own process: listen, run, send, or wait."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from synthgrad.stages.channels import Inlet, Links, Packet, PacketKind
from synthgrad.stages.counters import Counters, Turn
from synthgrad.stages.mailbox import Post
from synthgrad.stages.owed import Owed
from synthgrad.stages.policy import Policy
from synthgrad.stages.runners.attempt import Attempts
from synthgrad.stages.stage import Stage


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
        self.stage, self.k, self.steps, self.policy, self.generation = stage, k, steps, policy, generation
        self.counters = Counters()
        self.post = Post(k, links, steps, policy, generation, now, self.counters)
        self.owed = Owed(policy.in_flight, generation)
        self.attempts = Attempts(stage, self.post, own=k == 0 or stage.unlocked)
        self.past: deque[Packet] = deque(maxlen=policy.replay or None)
        self.early: list[Packet] = []  # in lockstep, what is about a step that this stage has yet to make
        self.answered = -1  # the last step that the stage above has answered
        self.over = False
        self.high = 0  # below this, every step of the data has been made or is counted as missed
        self.bad_before = 0  # what was not finite in earlier lives
        # Nobody has waited for a stage that needs no messages: it goes on where the others are by now.
        self.late = generation > 1 and not stage.patient

    def turn(self) -> Turn:
        """Take in what has come, and make a step if that is possible."""
        self._listen()
        self.post.flush()
        found = None if self.over or self._waits() else self._input()
        stepped = found is not None and self._step(found)
        self.counters.nonfinite = self.bad_before + self.stage.nonfinite
        if stepped:
            return Turn.STEPPED
        self.greet(self.policy.heartbeat_interval)
        return Turn.ENDED if self.over else Turn.WAITED

    def greet(self, every: float = 0.0) -> None:
        """A word to the neighbours, unless there has just been one."""
        self.post.speak(every, self.counters.clock - 1, self.over)

    def _step(self, packet: Packet) -> bool:
        """One step on a message, on this stage's own data or, where ``packet.step`` is negative, on its past.

        Returns:
            Whether it was made; not on a message whose sizes the part cannot take.
        """
        stage, told, replayed = self.stage, self.counters, packet.step < 0
        h, context = (*packet.tensors, None)[:2]
        stage.schedule(told.clock if replayed else packet.step)
        if stage.unlocked:
            h = stage.synthetic_input(h)
        done = self.attempts.step(packet, h, context)
        if done is None:
            return False
        told.steps += 1
        if done.loss is not None:
            told.loss = _running(told.loss, done.loss.item(), told.steps)
        if replayed:  # the neighbours have had all that comes of it
            told.replayed += 1
            self.attempts.judge(done, packet.step)
            return True
        told.missed += max(packet.step - self.high, 0)
        told.clock = packet.step + 1
        self.high = max(self.high, told.clock)
        self.over = told.clock >= self.steps
        with stage.timed("send"):
            if done.delta is not None:
                tensors = _without_none((done.delta, h if stage.unlocked else None))
                self.post.down(Packet(PacketKind.GRADIENT, self.k, self.generation, packet.step, tensors=tensors))
            if done.message is not None:
                self.owed.keep(packet.step, done.message, context)
                tensors = _without_none((done.message, context))
                self.post.up(Packet(PacketKind.MESSAGE, self.k, self.generation, packet.step, tensors=tensors))
            else:
                self.post.skip(packet.step)
        self.attempts.judge(done, packet.step)
        return True

    def _input(self) -> Packet | None:
        """What to run on next, or None where there is nothing."""
        stage, clock = self.stage, self.counters.clock
        if self.k == 0 or stage.unlocked:
            assert stage.data is not None
            return Packet(PacketKind.MESSAGE, self.k, 0, clock, tensors=_without_none(stage.data(clock)))
        if (packet := self.post.message()) is not None:
            if self.policy.replay:
                self.past.append(packet)
            return packet
        if self.post.below.ended:
            self.over = True
            self.counters.missed += self.steps - self.high
            self.high = self.steps
        elif self.policy.replay and self.past and self.post.below_is_out:
            self.past.rotate()
            return replace(self.past[0], step=-1)
        return None

    def _listen(self) -> None:
        """Learn from what has come: of several gradients, or messages, from the newest, as the others are stale."""
        found, self.early = [*self.early, *self.post.gradients()], []
        while self.stage.unlocked and (packet := self.post.message()) is not None:
            found.append(packet)
        gradient = message = None
        for packet in found:
            if packet.kind is PacketKind.GRADIENT:
                self.answered = packet.step
                if why := self.owed.misfit(packet):
                    self.post.refuse(packet, why)
                    continue
            if self.policy.lockstep and packet.step >= self.counters.clock and not self.over:
                self.early.append(packet)
            elif packet.kind is PacketKind.MESSAGE:
                message = packet
            else:
                self.counters.lost += gradient is not None
                gradient = packet
        if self.late and self.post.furthest >= 0:
            self.late = False
            self.counters.clock = max(self.counters.clock, min(self.post.furthest, self.steps - 1))
        if gradient is not None:
            self._learn(gradient)
        if message is not None:
            assert self.stage.data is not None
            self.stage.learn_input(self.stage.data(message.step)[0], message.tensors[0])

    def _learn(self, packet: Packet) -> None:
        """Teach the gradient model above, if the gradient is not too old and belongs to a message that is known."""
        told, staleness = self.counters, max(self.counters.clock - 1 - packet.step, 0)
        if len(packet.tensors) == 2:  # the stage above ran on a synthetic input, and says on which
            h = packet.tensors[1] if self.post.begun else None
            self.owed.forget(packet.step)
            context = None if self.stage.data is None else self.stage.data(packet.step)[1]
            if context is not None and h is not None and context.shape[:1] != h.shape[:1]:
                h = None
            if h is not None and h.shape[1:] not in self.owed.sizes:  # of an earlier life: will M take it?
                h = None
        else:
            h, context = self.owed.take(packet)
        limit = self.policy.max_staleness
        if h is None or h.shape != packet.tensors[0].shape or (limit is not None and staleness > limit):
            told.lost += 1
            return
        if not self.stage.learn(h, context, packet.tensors[0]):
            return  # counted by the stage
        self.post.used()
        told.staleness = _running(told.staleness, float(staleness), told.learnt + 1)
        told.learnt += 1
        told.regression_loss = self.stage.regression_loss

    @property
    def done(self) -> bool:
        """Whether it has made all its steps, and what came of them has arrived; in lockstep been answered, too."""
        arrived = self.counters.queue == 0 or self.post.above_is_out
        return self.over and arrived and not self._waits()

    def _waits(self) -> bool:
        """Whether a neighbour must do something first."""
        # A message that found no room is not thrown away while the stage above is alive to make some.
        full = bool(self.post.outbox) and self.stage.patient
        waits = (full or self._unanswered()) and not self.post.above_is_out
        return waits or (self._unheard() and not (self.post.below.ended or self.post.below_is_out))

    def _unanswered(self) -> bool:
        """Whether the last message must be answered first, in lockstep.

        By its gradient; where that is lost, by a word that the message was taken in, or that its receiver died.
        A stage on synthetic inputs answers every step, whatever it takes in; one that died, by a later one.
        """
        last, post = self.owed.last, self.post
        if not self.policy.lockstep or last is None:
            return False
        if not self.stage.patient:
            return self.answered < last
        return bool(post.outbox) or last in post.above.under_way

    def _unheard(self) -> bool:
        """Whether the message of the last step must come first, in lockstep: it teaches the input model."""
        return self.policy.lockstep and self.stage.unlocked and self.post.taken < self.counters.clock - 1

    def waits_for(self) -> list[Inlet]:
        """Where something must come in before another turn makes sense."""
        room = self.stage.unlocked or not (self.over or self._waits())
        links = self.post.links
        found = (links.messages_in if room else None, links.gradients_in)
        return [inlet for inlet in found if inlet is not None]

    def state_dict(self) -> dict[str, Any]:
        """All that a restart needs.

        Raises:
            ArithmeticError: if a parameter is not finite: that must not take the place of what was.
        """
        if name := self.stage.spoilt():
            raise ArithmeticError(f"{name} is not finite after step {self.counters.clock - 1}; it is not saved")
        told = {**vars(self.counters), "queue": 0}
        random = torch.get_rng_state()
        return {"stage": self.stage.state_dict(), "counters": told, "random": random, "high": self.high}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a ``state_dict``.

        Raises:
            ValueError: if it is none.
        """
        if missing := {"stage", "counters", "random"} - state.keys():
            raise ValueError(f"the state has no {sorted(missing)[0]!r}: no stage of a launch has written it")
        self.stage.load_state_dict(state["stage"])
        vars(self.counters).update(state["counters"])
        self.bad_before = self.counters.nonfinite - self.stage.nonfinite
        self.high = state.get("high", self.counters.clock)
        self.over = self.counters.clock >= self.steps
        torch.set_rng_state(state["random"])


def _running(mean: float, value: float, count: int) -> float:
    """A running mean over some hundred values; a plain one at first."""
    return value if math.isnan(mean) else mean + (value - mean) / min(count, 100)


def _without_none(pair: tuple[Tensor, Tensor | None]) -> tuple[Tensor, ...]:
    return tuple(t for t in pair if t is not None)
