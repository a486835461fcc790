"""A stage: a part of a chain that trains on its own; late gradients teach its gradient model."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from synthgrad.interface.interface import Interface
from synthgrad.stages.finite import Buffers, are_finite, is_finite

Data = Callable[[int], tuple[Any, Tensor | None]]
"""Returns the data of a step, the chain's input and the context (labels), from the step's number alone."""


class StepResult(NamedTuple):
    """The tensors that a step sends to the neighbours, and its loss."""

    message: Tensor | None
    """h, for the stage above; None in the last stage."""
    delta: Tensor | None
    """The gradient of the received h, for the stage below; None in the first stage."""
    loss: Tensor | None
    """The task's loss; only in the last stage."""
    fault: str = ""
    """The value that was not finite, if one was: then nothing was learnt, and only finite tensors are returned."""


@dataclass(kw_only=True)
class Stage:
    """A part, its optimizer, and the interfaces to its neighbours.

    The interface *above* predicts this stage's synthetic gradients, and is taught when the true gradient comes,
    however late. The interface *below* is needed for its input model only: with one, this stage runs on synthetic
    inputs (complete unlock) and waits for no other stage.

    A value that is not finite teaches nothing, moves no weight and is not sent; ``nonfinite`` counts it.

    Args:
        part: the module.
        optimizer: of everything that is trained in this stage: the part, the gradient model above and the input
            model below.
        above: the interface to the next stage; None in the last.
        below: the interface to the stage below, if it has an input model.
        criterion: ``criterion(output, context)``, the task's loss; in the last stage.
        data: in the first stage; with an input model below, in every stage.
        schedule: called with the step's number before each step, for instance to set learning rates.
        conditioned: whether the gradient model sees the context.
        patient: whether it waits when the stage above has no room for its messages; if not, it drops the oldest.
            A stage above that runs on synthetic inputs does not need every message.
        clip: the largest norm of the part's gradient; a longer gradient is scaled down to it.

    Attributes:
        nonfinite: how many steps and gradients taught nothing because something in them was not finite.

    Raises:
        ValueError: if the stage has nothing to learn from, or no data for its input model.

    References:
        Jaderberg et al. 2017, Fig. 1, section 2.1; Fig. 6 for the complete unlock.
    """

    part: nn.Module
    optimizer: Optimizer
    above: Interface | None = None
    below: Interface | None = None
    criterion: Callable[[Tensor, Any], Tensor] | None = None
    data: Data | None = None
    schedule: Callable[[int], None] = lambda step: None
    conditioned: bool = True
    patient: bool = True
    clip: float | None = None
    timed: Callable[[str], AbstractContextManager[Any]] = nullcontext
    """A context manager around each activity, by its name: forward, backward, update, send, fit."""
    nonfinite: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._buffers = Buffers()
        if (self.above is None) == (self.criterion is None):
            raise ValueError("a stage has an interface above it or, if it is the last one, a criterion")
        if self.unlocked and self.data is None:
            raise ValueError("a stage that runs on synthetic inputs needs the data that its input model sees")

    @property
    def unlocked(self) -> bool:
        """Whether it runs on synthetic inputs."""
        return self.below is not None and self.below.input_model is not None

    def step(self, h: Any, context: Tensor | None, first: bool = False) -> StepResult:
        """Run the part, train it, and return the tensors for the neighbours.

        Args:
            h: the message from below; in the first stage the data.
            context: the message's context, for instance labels.
            first: whether this is the first stage, so that no gradient of ``h`` is needed.
        """
        h, context = self._to_device(h), self._to_device(context)
        if not is_finite(h):
            return self._nothing_learnt("the data" if first else "the message from below")
        with self.timed("forward"):
            self._buffers.keep(self.part)
            leaf = h if first else h.detach().requires_grad_()
            out = self.part(leaf)
            task = None if self.criterion is None else self.criterion(out, context)
        result = out if task is None else task
        if not is_finite(result):
            self._buffers.restore()
            return self._nothing_learnt("the part's output" if task is None else f"the loss ({task.item()})")
        message = out.detach() if self.above is not None else None
        with self.timed("backward"):
            if self.above is not None:
                before = int(self.above.withheld)
                loss = self.above.send(out, self._visible(context))
                if int(self.above.withheld) > before:  # a zero instead would move the part by momentum
                    return self._nothing_learnt("the synthetic gradient", message)
            else:
                loss = task
            assert loss is not None  # by __post_init__
            loss.backward()
        delta = None if first else leaf.grad
        with self.timed("update"):
            known_finite = False
            if self.clip is not None:
                norm = torch.nn.utils.clip_grad_norm_(self.part.parameters(), self.clip)
                known_finite = bool(norm.isfinite())
            if not is_finite(delta):
                self.optimizer.zero_grad()
                return self._nothing_learnt("the gradient for the stage below", message)
            if not self._update(known_finite):
                return self._nothing_learnt("the part's gradient", message, delta)
        return StepResult(message, delta, None if task is None else task.detach())

    def synthetic_input(self, source: Any) -> Tensor:
        """I(x), the synthetic input that takes a message's place."""
        assert self.below is not None
        return self.below.synthetic_input(self._to_device(source))

    def learn(self, h: Tensor, context: Tensor | None, delta: Tensor) -> bool:
        """Teach the gradient model above the true gradient of a message.

        Returns:
            Whether everything was finite, so that the model was taught.

        Raises:
            ValueError: if the gradient has another shape than its message.
        """
        assert self.above is not None
        if delta.shape != h.shape:
            raise ValueError(f"the gradient has shape {tuple(delta.shape)}, its message {tuple(h.shape)}")
        with self.timed("fit"):
            taught = is_finite(delta) and is_finite(h)
            if taught:
                # The same backward pass as in the receiver, so that a gradient in time gives the same numbers.
                self.above.receive(h, self._visible(self._to_device(context))).backward(delta.to(h.device))
                taught = self._update()
        self.nonfinite += not taught
        return taught

    def learn_input(self, source: Any, h: Tensor) -> bool:
        """Teach the input model below the message that it should have predicted.

        Returns:
            Whether everything was finite, so that the model was taught.
        """
        assert self.below is not None
        with self.timed("fit"):
            taught = is_finite(h) and is_finite(source)
            if taught:
                self.below.fit(self._to_device(h), source=self._to_device(source)).backward()
                taught = self._update()
        self.nonfinite += not taught
        return taught

    @property
    def regression_loss(self) -> float:
        """‖δ̂ - δ‖² / ‖δ‖² of the last gradient that came; NaN in the last stage."""
        return float("nan") if self.above is None else self.above.regression_loss.item()

    def _visible(self, context: Tensor | None) -> Tensor | None:
        return context if self.conditioned else None

    def _to_device(self, t: Any) -> Any:
        """The tensor on the part's device; anything else unchanged."""
        device = next((p.device for p in self.part.parameters()), None)
        return t if device is None or not isinstance(t, Tensor) else t.to(device)

    def _update(self, finite: bool = False) -> bool:
        """Let the optimizer move everything that has a gradient, the part or one of the models.

        If nothing has one (a frozen part, a model without parameters), the optimizer is not called.

        Args:
            finite: whether the gradients are known to be finite.

        Returns:
            Whether all gradients are finite; if not, nothing moves.
        """
        gradients = [p.grad for p in self._trained() if p.grad is not None]
        finite = finite or are_finite(gradients)
        if gradients and finite:
            self.optimizer.step()
        self.optimizer.zero_grad()
        return finite

    def _trained(self) -> list[Tensor]:
        """The parameters that the optimizer moves."""
        groups = getattr(self.optimizer, "param_groups", None)
        if groups is not None:
            return [p for group in groups for p in group["params"]]
        modules = (self.part, self.above, self.below)
        return [p for module in modules if module is not None for p in module.parameters()]

    def _nothing_learnt(self, fault: str, message: Tensor | None = None, delta: Tensor | None = None) -> StepResult:
        """Count a step that was not finite, and return its result."""
        self.nonfinite += 1
        return StepResult(message, delta, None, fault)

    def nonfinite_parameter(self) -> str:
        """The name of the first parameter that is not finite, or nothing; such a stage is never saved."""
        modules = {"part": self.part, "above": self.above, "below": self.below}
        named = ((f"{at}.{name}", p) for at, m in modules.items() if m for name, p in m.named_parameters())
        return next((name for name, p in named if not is_finite(p)), "")

    def state_dict(self) -> dict[str, Any]:
        """Everything that later steps depend on."""
        return {name: getattr(self, name).state_dict() for name in self._stateful()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a ``state_dict``.

        Raises:
            ValueError: if it is the state of another stage.
        """
        if missing := [name for name in self._stateful() if name not in state]:
            raise ValueError(f"the state has no {missing[0]!r}: it is of another stage, or of another build of it")
        for name in self._stateful():
            getattr(self, name).load_state_dict(state[name])

    def _stateful(self) -> list[str]:
        return [name for name in ("part", "optimizer", "above", "below") if getattr(self, name) is not None]
