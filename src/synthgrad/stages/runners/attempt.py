"""A step that may come to nothing: on sizes that a part cannot take, or on what is not finite."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from synthgrad.stages.channels import Packet
from synthgrad.stages.mailbox import IN_A_ROW, Post
from synthgrad.stages.stage import Done, Stage


class Attempts:
    """Makes a stage's steps, and judges what comes of them.

    Args:
        stage: whose steps.
        post: where messages that cannot be used are refused.
        own: whether they are made on the stage's own data, and not on messages.
    """

    def __init__(self, stage: Stage, post: Post, own: bool):
        self.stage, self.post, self.own = stage, post, own
        self.known: set[Any] = set()  # sizes behind the batch that the part has taken
        self.bad_in_a_row = 0

    def step(self, packet: Packet, h: Any, context: Tensor | None) -> Done | None:
        """Make a step; None where the message has sizes that the part has never taken, and does not take.

        An error of a part on sizes that it has taken before, or on its very first message, is its own.
        """
        tensors = [t for t in packet.tensors if isinstance(t, Tensor)]
        form = (*(t.shape[1:] for t in tensors), len({t.shape[:1] for t in tensors}))
        try:
            done = self.stage.step(h, context, first=self.post.k == 0)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            if self.own or not self.known or form in self.known:
                raise
            self.stage.optimizer.zero_grad()
            self.post.refuse(packet, str(error).partition("\n")[0] or type(error).__name__)
            return None
        self.known.add(form)
        self.post.used()
        return done

    def judge(self, done: Done, step: int) -> None:
        """Whether steps that are not finite are an accident.

        Raises:
            ArithmeticError: if there have been many in a row.
        """
        self.bad_in_a_row = self.bad_in_a_row + 1 if done.fault else 0
        if self.bad_in_a_row >= IN_A_ROW:
            raise ArithmeticError(
                f"{done.fault} is not finite at step {step}, nor was all at the {IN_A_ROW - 1} steps before; "
                "look at the data, or try a lower rate"
            )
