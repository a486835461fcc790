"""Matches gradients, which come late, with their messages, and teaches the gradient model."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor

from synthgrad.stages.channels import Packet
from synthgrad.stages.counters import Counters, running_mean
from synthgrad.stages.mailbox import Mailbox
from synthgrad.stages.policy import Policy
from synthgrad.stages.stage import Stage


class LateGradients:
    """Keeps messages and their contexts until their gradients come, then teaches the gradient model above.

    Args:
        stage: the stage that sent the messages.
        mailbox: its mailbox.
        policy: how many messages are kept, and how late a gradient may be.
        counters: count what was learnt and what was lost.
    """

    def __init__(self, stage: Stage, mailbox: Mailbox, policy: Policy, counters: Counters):
        self.stage, self.mailbox, self.policy, self.counters = stage, mailbox, policy, counters
        self.kept: OrderedDict[int, tuple[Tensor, Tensor | None]] = OrderedDict()
        """Messages and contexts by step, the oldest first."""
        self.sizes: set[torch.Size] = set()
        """Sizes behind the batch of all messages sent so far."""

    def keep(self, step: int, h: Tensor, context: Tensor | None) -> None:
        """Keep a message until its gradient comes; the oldest is forgotten if there are too many."""
        self.kept.pop(step, None)  # after a restart of the stage below, a step may be made again
        self.kept[step] = (h, context)
        self.sizes.add(h.shape[1:])
        while len(self.kept) > self.policy.in_flight:
            self.kept.popitem(last=False)

    @property
    def last(self) -> int | None:
        """The step of the latest message whose gradient has not come."""
        return next(reversed(self.kept), None)

    def mismatch(self, packet: Packet) -> str:
        """Why a gradient cannot belong to its message; nothing if it fits, or if the message is not known."""
        kept = self.kept.get(packet.step) if self._answers_this_process(packet) else None
        wanted = packet.tensors[-1] if kept is None else kept[0]
        fits = all(t.shape[1:] == wanted.shape[1:] for t in packet.tensors)
        return "" if fits else f"its message was {tuple(wanted.shape)}"

    def learn(self, packet: Packet) -> None:
        """Teach the gradient model above, if the gradient is not too old and its message is known."""
        counters = self.counters
        staleness = max(counters.clock - 1 - packet.step, 0)
        if len(packet.tensors) == 2:  # the stage above ran on a synthetic input, and has sent it along
            h, context = self._synthetic_message(packet)
        else:
            h, context = (
                self.kept.pop(packet.step, (None, None)) if self._answers_this_process(packet) else (None, None)
            )
        limit = self.policy.max_staleness
        if h is None or h.shape != packet.tensors[0].shape or (limit is not None and staleness > limit):
            counters.lost += 1
            return
        if not self.stage.learn(h, context, packet.tensors[0]):
            return  # the stage has counted it
        self.mailbox.note_usable()
        counters.learnt += 1
        counters.staleness = running_mean(counters.staleness, float(staleness), counters.learnt)
        counters.regression_loss = self.stage.regression_loss

    def _synthetic_message(self, packet: Packet) -> tuple[Tensor | None, Tensor | None]:
        """The message that the stage above has sent back, and its context; no message if M may not take it."""
        h = packet.tensors[1] if self.mailbox.has_sent else None
        self.kept.pop(packet.step, None)
        context = None if self.stage.data is None else self.stage.data(packet.step)[1]
        if h is not None and context is not None and context.shape[:1] != h.shape[:1]:
            h = None
        if h is not None and h.shape[1:] not in self.sizes:  # it answers a message of an earlier process
            h = None
        return h, context

    def _answers_this_process(self, packet: Packet) -> bool:
        """Whether a gradient answers a message of this process, not of an earlier one."""
        return packet.echo == self.mailbox.generation
