"""A stage between its channels, the same in a simulation and in a process: it receives, runs, sends, or waits."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor

from synthgrad.stages.channels import Inlet, Links, Packet, PacketKind
from synthgrad.stages.counters import Counters, running_mean
from synthgrad.stages.late_gradients import LateGradients
from synthgrad.stages.mailbox import Mailbox
from synthgrad.stages.policy import Policy
from synthgrad.stages.stage import Stage, StepResult
from synthgrad.stages.step_guard import StepGuard


class TurnResult(IntEnum):
    """The result of a turn."""

    STEPPED = 1
    WAITED = 2
    ENDED = 3


class Node:
    """Runs a stage between its channels, turn by turn.

    Args:
        stage: the stage.
        k: its place, from 0.
        links: the stage's ends of its channels.
        steps: of the run.
        policy: how long it waits for its neighbours.
        generation: how often it has been started, from 1.
        now: the time, in seconds or ticks.

    Attributes:
        ended: whether it has made all its steps.

    Raises:
        ValueError: if the stage does not fit its place in the chain.
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
        self.own_data = k == 0 or stage.unlocked
        self.counters = Counters()
        self.mailbox = Mailbox(k, links, steps, policy, generation, now, self.counters)
        self.late_gradients = LateGradients(stage, self.mailbox, policy, self.counters)
        self.guard = StepGuard(stage, self.mailbox, self.own_data)
        self.past: deque[Packet] = deque(maxlen=policy.replay or None)
        self.early: list[Packet] = []  # in lockstep, packets about a step that this stage has yet to make
        self.last_answered = -1  # the last step for which a gradient has come
        self.ended = False
        self.accounted = 0  # every step of the data below this one has been made, or is counted as missed
        self.nonfinite_before = 0  # the count from earlier processes of this stage
        # After a restart, a stage that needs no messages resumes at the step where its neighbours are by now.
        self.catches_up = generation > 1 and not stage.patient

    def turn(self) -> TurnResult:
        """Receive what has come, and make a step if that is possible."""
        self._receive()
        self.mailbox.flush()
        packet = None if self.ended or self._must_wait() else self._next_input()
        stepped = packet is not None and self._step(packet)
        self.counters.nonfinite = self.nonfinite_before + self.stage.nonfinite
        if stepped:
            return TurnResult.STEPPED
        self.send_heartbeats(self.policy.heartbeat_interval)
        return TurnResult.ENDED if self.ended else TurnResult.WAITED

    def send_heartbeats(self, interval: float = 0.0) -> None:
        """Send a heartbeat to the neighbours, unless a packet went out less than ``interval`` ago."""
        self.mailbox.send_heartbeats(interval, self.counters.clock - 1, self.ended)

    def _step(self, packet: Packet) -> bool:
        """Make one step on a message or on this stage's own data; a replayed message has ``packet.step`` -1.

        Returns:
            Whether the step was made; False if the part cannot take the message's sizes.
        """
        stage, counters, replayed = self.stage, self.counters, packet.step < 0
        h, context = (*packet.tensors, None)[:2]
        stage.schedule(counters.clock if replayed else packet.step)
        if stage.unlocked:
            h = stage.synthetic_input(h)
        result = self.guard.step(packet, h, context)
        if result is None:
            return False
        counters.steps += 1
        if result.loss is not None:
            counters.loss = running_mean(counters.loss, result.loss.item(), counters.steps)
        if replayed:  # the neighbours have had its message and its gradient already
            counters.replayed += 1
        else:
            counters.missed += max(packet.step - self.accounted, 0)
            counters.clock = packet.step + 1
            self.accounted = max(self.accounted, counters.clock)
            self.ended = counters.clock >= self.steps
            with stage.timed("send"):
                self._send(packet.step, result, context, h if stage.unlocked else None)
        self.guard.check_finite(result, packet.step)
        return True

    def _send(self, step: int, result: StepResult, context: Tensor | None, synthetic: Tensor | None) -> None:
        """Send a step's gradient down, with the synthetic input that it ran on, and its message up."""
        if result.delta is not None:
            tensors = _present(result.delta, synthetic)
            self.mailbox.send_gradient(Packet(PacketKind.GRADIENT, self.k, self.generation, step, tensors=tensors))
        if result.message is None:
            self.mailbox.send_no_message(step)
            return
        self.late_gradients.keep(step, result.message, context)
        tensors = _present(result.message, context)
        self.mailbox.send_message(Packet(PacketKind.MESSAGE, self.k, self.generation, step, tensors=tensors))

    def _next_input(self) -> Packet | None:
        """The packet for the next step: own data, a message or, while the stage below is down, a past message."""
        if self.own_data:
            assert self.stage.data is not None
            clock = self.counters.clock
            return Packet(PacketKind.MESSAGE, self.k, 0, clock, tensors=_present(*self.stage.data(clock)))
        if (packet := self.mailbox.next_message()) is not None:
            if self.policy.replay:
                self.past.append(packet)
            return packet
        if self.mailbox.below.ended:
            self.ended = True
            self.counters.missed += self.steps - self.accounted
            self.accounted = self.steps
        elif self.policy.replay and self.past and self.mailbox.below_is_down:
            self.past.rotate()
            return replace(self.past[0], step=-1)
        return None

    def _receive(self) -> None:
        """Learn from the newest gradient and, with an input model, the newest message; older ones are stale."""
        found, self.early = [*self.early, *self.mailbox.new_gradients()], []
        while self.stage.unlocked and (packet := self.mailbox.next_message()) is not None:
            found.append(packet)
        gradient = message = None
        for packet in found:
            if packet.kind is PacketKind.GRADIENT:
                self.last_answered = packet.step
                if why := self.late_gradients.mismatch(packet):
                    self.mailbox.refuse(packet, why)
                    continue
            if self.policy.lockstep and packet.step >= self.counters.clock and not self.ended:
                self.early.append(packet)
            elif packet.kind is PacketKind.MESSAGE:
                message = packet
            else:
                self.counters.lost += gradient is not None
                gradient = packet
        if self.catches_up and self.mailbox.furthest_seen >= 0:
            self.catches_up = False
            self.counters.clock = max(self.counters.clock, min(self.mailbox.furthest_seen, self.steps - 1))
        if gradient is not None:
            self.late_gradients.learn(gradient)
        if message is not None:
            assert self.stage.data is not None
            self.stage.learn_input(self.stage.data(message.step)[0], message.tensors[0])

    @property
    def done(self) -> bool:
        """Whether all steps are made and all messages have arrived; in lockstep, also been answered."""
        arrived = self.counters.queue == 0 or self.mailbox.above_is_down
        return self.ended and arrived and not self._must_wait()

    def _must_wait(self) -> bool:
        """Whether a neighbour must do something before the next step."""
        # While the stage above is alive, a message that found no room is kept until there is some.
        full = bool(self.mailbox.outbox) and self.stage.patient
        if (full or self._gradient_missing()) and not self.mailbox.above_is_down:
            return True
        return self._message_missing() and not (self.mailbox.below.ended or self.mailbox.below_is_down)

    def _gradient_missing(self) -> bool:
        """Whether, in lockstep, the last message must be answered before the next step.

        The answer is its gradient or, if that is lost, a packet which shows that the message was received or that
        its receiver died. A stage on synthetic inputs answers every step or, after a restart, a later one.
        """
        last, mailbox = self.late_gradients.last, self.mailbox
        if not self.policy.lockstep or last is None:
            return False
        if not self.stage.patient:
            return self.last_answered < last
        return bool(mailbox.outbox) or last in mailbox.above.unreceived

    def _message_missing(self) -> bool:
        """Whether, in lockstep, the message of the last step must come first: it teaches the input model."""
        missing = self.mailbox.last_received < self.counters.clock - 1
        return self.policy.lockstep and self.stage.unlocked and missing

    def inlets_to_watch(self) -> list[Inlet]:
        """The inlets where a packet would make another turn worthwhile."""
        wants_message = self.stage.unlocked or not (self.ended or self._must_wait())
        inlets = (self.mailbox.links.messages_in if wants_message else None, self.mailbox.links.gradients_in)
        return [inlet for inlet in inlets if inlet is not None]

    def state_dict(self) -> dict[str, Any]:
        """Everything that a restart needs.

        Raises:
            ArithmeticError: if a parameter is not finite: such a state must not replace a good one.
        """
        if name := self.stage.nonfinite_parameter():
            raise ArithmeticError(f"{name} is not finite after step {self.counters.clock - 1}; it is not saved")
        own = {"counters": {**vars(self.counters), "queue": 0}, "high": self.accounted}
        return {"stage": self.stage.state_dict(), "random": torch.get_rng_state(), **own}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a ``state_dict``.

        Raises:
            ValueError: if it is not the state of a node.
        """
        if missing := {"stage", "counters", "random"} - state.keys():
            raise ValueError(f"the state has no {sorted(missing)[0]!r}: no stage of a launch has written it")
        self.stage.load_state_dict(state["stage"])
        vars(self.counters).update(state["counters"])
        self.nonfinite_before = self.counters.nonfinite - self.stage.nonfinite
        self.accounted = state.get("high", self.counters.clock)
        self.ended = self.counters.clock >= self.steps
        torch.set_rng_state(state["random"])


def _present(*tensors: Tensor | None) -> tuple[Tensor, ...]:
    return tuple(t for t in tensors if t is not None)
