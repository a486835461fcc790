"""One part of a chain on its own: it learns when it runs, and its gradient model when the late gradient comes."""

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
"""The data of a step: the chain's input, and the context (labels), by the step's number alone."""


class Done(NamedTuple):
    """What a step leaves to be sent."""

    message: Tensor | None
    """h, for the stage above; the last stage has none."""
    delta: Tensor | None
    """The gradient of the received h, for the stage below; the first stage has none."""
    loss: Tensor | None
    """The task's, of the last stage."""
    fault: str = ""
    """What was not finite: then nothing has moved, and only what is finite is handed out."""


@dataclass(kw_only=True)
class Stage:
    """A part, its optimizer and its ends of the interfaces to its neighbours.

    The interface *above* is asked for this stage's synthetic gradients, and taught when the gradient comes,
    however late. The interface *below* is needed for its input model only: with one, this stage runs on synthetic
    inputs (complete unlock) and waits for nobody at all.

    Whatever is not finite teaches nothing, moves nothing and is not handed out; ``nonfinite`` counts it.

    Args:
        part: the module.
        optimizer: moves the part and what is learnt here beside it: the gradient model above, the input model
            below.
        above: the interface to the next stage; None in the last.
        below: the interface to the stage below, if it has an input model.
        criterion: ``criterion(output, context)``, the task's loss; in the last stage.
        data: in the first stage; with an input model below, in every stage.
        schedule: called with the step's number before each step, for instance to set learning rates.
        conditioned: whether the gradient model sees the context.
        patient: whether it waits, for a while, when the stage above has no room for its messages; else the oldest
            is dropped. With an input model, the stage above does not need every one.
        clip: the largest norm of the part's gradient; longer ones are shortened.

    Attributes:
        nonfinite: how many steps and lessons there were from which nothing was learnt, since something in them was
            not finite.

    Raises:
        ValueError: if it is a stage that could not learn.

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
    """Opened around everything that takes time: forward, backward, update, send, fit."""
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

    def step(self, h: Any, context: Tensor | None, first: bool = False) -> Done:
        """Run forwards, learn, and hand out what the neighbours want.

        Args:
            h: the message from below; in the first stage the data.
            context: of the message, for instance labels.
            first: whether nobody below wants a gradient.
        """
        h, context = self._here(h), self._here(context)
        if not is_finite(h):
            return self._faulty("the data" if first else "the message from below")
        with self.timed("forward"):
            self._buffers.keep(self.part)
            leaf = h if first else h.detach().requires_grad_()
            out = self.part(leaf)
            task = None if self.criterion is None else self.criterion(out, context)
        result = out if task is None else task
        if not is_finite(result):
            self._buffers.restore()
            return self._faulty("the part's output" if task is None else f"the loss ({task.item()})")
        message = out.detach() if self.above is not None else None
        with self.timed("backward"):
            if self.above is not None:
                before = int(self.above.withheld)
                loss = self.above.send(out, self._seen(context))
                if int(self.above.withheld) > before:  # zero in its place would move the part by momentum
                    return self._faulty("the synthetic gradient", message)
            else:
                loss = task
            assert loss is not None  # by __post_init__
            loss.backward()
        delta = None if first else leaf.grad
        with self.timed("update"):
            short = False  # clipping has measured the gradient already
            if self.clip is not None:
                short = bool(torch.nn.utils.clip_grad_norm_(self.part.parameters(), self.clip).isfinite())
            if not is_finite(delta):
                self.optimizer.zero_grad()
                return self._faulty("the gradient for the stage below", message)
            if not self._update(short):
                return self._faulty("the part's gradient", message, delta)
        return Done(message, delta, None if task is None else task.detach())

    def synthetic_input(self, source: Any) -> Tensor:
        """I(x), to run on instead of a message."""
        assert self.below is not None
        return self.below.synthetic_input(self._here(source))

    def learn(self, h: Tensor, context: Tensor | None, delta: Tensor) -> bool:
        """Teach the gradient model above what the message received.

        Returns:
            Whether it was finite, and so taught it.

        Raises:
            ValueError: if the gradient has another shape than its message.
        """
        assert self.above is not None
        if delta.shape != h.shape:
            raise ValueError(f"the gradient has shape {tuple(delta.shape)}, its message {tuple(h.shape)}")
        with self.timed("fit"):
            taught = is_finite(delta) and is_finite(h)
            if taught:
                # The receiver's own backward pass, so that a gradient on time teaches the same, bit for bit.
                self.above.receive(h, self._seen(self._here(context))).backward(delta.to(h.device))
                taught = self._update()
        self.nonfinite += not taught
        return taught

    def learn_input(self, source: Any, h: Tensor) -> bool:
        """Teach the input model below the message that it stands in for.

        Returns:
            Whether it was finite, and so taught it.
        """
        assert self.below is not None
        with self.timed("fit"):
            taught = is_finite(h) and is_finite(source)
            if taught:
                self.below.fit(self._here(h), source=self._here(source)).backward()
                taught = self._update()
        self.nonfinite += not taught
        return taught

    @property
    def regression_loss(self) -> float:
        """‖δ̂ - δ‖² / ‖δ‖² of the last gradient that came; NaN where there is none."""
        return float("nan") if self.above is None else self.above.regression_loss.item()

    def _seen(self, context: Tensor | None) -> Tensor | None:
        return context if self.conditioned else None

    def _here(self, t: Any) -> Any:
        """On the part's device."""
        place = next((p.device for p in self.part.parameters()), None)
        return t if place is None or not isinstance(t, Tensor) else t.to(place)

    def _update(self, finite: bool = False) -> bool:
        """Move whatever has a gradient, the part or one of the models; False if a gradient is not finite.

        Where nothing has one (a frozen part, a model that computes without parameters), nothing moves.

        Args:
            finite: whether that is known to be.
        """
        gradients = [p.grad for p in self._learnt() if p.grad is not None]
        finite = finite or are_finite(gradients)
        if gradients and finite:
            self.optimizer.step()
        self.optimizer.zero_grad()
        return finite

    def _learnt(self) -> list[Tensor]:
        """What the optimizer moves."""
        groups = getattr(self.optimizer, "param_groups", None)
        if groups is not None:
            return [p for group in groups for p in group["params"]]
        modules = (self.part, self.above, self.below)
        return [p for module in modules if module is not None for p in module.parameters()]

    def _faulty(self, fault: str, message: Tensor | None = None, delta: Tensor | None = None) -> Done:
        """What a step leaves that has learnt nothing."""
        self.nonfinite += 1
        return Done(message, delta, None, fault)

    def spoilt(self) -> str:
        """The first parameter that is not finite, by name; a checkpoint with one is never written."""
        modules = {"part": self.part, "above": self.above, "below": self.below}
        named = ((f"{at}.{name}", p) for at, m in modules.items() if m for name, p in m.named_parameters())
        return next((name for name, p in named if not is_finite(p)), "")

    def state_dict(self) -> dict[str, Any]:
        """All that a later step depends on."""
        return {name: getattr(self, name).state_dict() for name in self._stateful()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a ``state_dict``.

        Raises:
            ValueError: if it is of another stage.
        """
        if missing := [name for name in self._stateful() if name not in state]:
            raise ValueError(f"the state has no {missing[0]!r}: it is of another stage, or of another build of it")
        for name in self._stateful():
            getattr(self, name).load_state_dict(state[name])

    def _stateful(self) -> list[str]:
        return [name for name in ("part", "optimizer", "above", "below") if getattr(self, name) is not None]
