"""Runs a stage's steps, and decides whether a failed step is an accident or an error."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from synthgrad.stages.channels import Packet
from synthgrad.stages.mailbox import IN_A_ROW, Mailbox
from synthgrad.stages.stage import Stage, StepResult


class StepGuard:
    """Refuses messages whose sizes the part cannot take, and fails after many steps that are not finite.

    Args:
        stage: the stage whose steps it runs.
        mailbox: refuses and counts the messages that cannot be used.
        own_data: whether the stage runs on its own data instead of messages.
    """

    def __init__(self, stage: Stage, mailbox: Mailbox, own_data: bool):
        self.stage, self.mailbox, self.own_data = stage, mailbox, own_data
        self.known_sizes: set[Any] = set()  # sizes behind the batch that the part has taken
        self.nonfinite_in_a_row = 0

    def step(self, packet: Packet, h: Any, context: Tensor | None) -> StepResult | None:
        """Run a step.

        An error of the part on sizes that it has taken before, or on its very first message, is the part's own.

        Returns:
            The step's result; None if the message has sizes that the part has never taken, and does not take.
        """
        tensors = [t for t in packet.tensors if isinstance(t, Tensor)]
        sizes = (*(t.shape[1:] for t in tensors), len({t.shape[:1] for t in tensors}))
        try:
            result = self.stage.step(h, context, first=self.mailbox.k == 0)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            if self.own_data or not self.known_sizes or sizes in self.known_sizes:
                raise
            self.stage.optimizer.zero_grad()
            self.mailbox.refuse(packet, str(error).partition("\n")[0] or type(error).__name__)
            return None
        self.known_sizes.add(sizes)
        self.mailbox.note_usable()
        return result

    def check_finite(self, result: StepResult, step: int) -> None:
        """Count steps in a row that were not finite.

        Raises:
            ArithmeticError: if there have been ``IN_A_ROW``.
        """
        self.nonfinite_in_a_row = self.nonfinite_in_a_row + 1 if result.fault else 0
        if self.nonfinite_in_a_row >= IN_A_ROW:
            raise ArithmeticError(
                f"{result.fault} is not finite at step {step}, like something in each of the {IN_A_ROW - 1} steps "
                "before; look at the data, or try a lower rate"
            )
