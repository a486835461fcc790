"""Training of a recurrent network in chunks of T steps: an update, its measures, its state."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from synthgrad import AuxiliaryTask, EligibilityTraces
from synthgrad.recurrent.state import pack
from synthgrad_lab.recurrent import networks
from synthgrad_lab.recurrent.measures import MEASURES
from synthgrad_lab.recurrent.settings import Settings
from synthgrad_lab.recurrent.tasks import task_of
from synthgrad_lab.recurrent.tasks.base import Chunk, Episodes
from synthgrad_lab.running.optimizers import adam, set_learning_rates

PIECE = 200
"""Steps that an evaluation runs at a time."""
WARN_AFTER = 3
"""Consecutive points of the curve with an R² below zero before a warning."""
PROBED = 5
"""Boundaries of a probe that are reported."""
PARTS = ("net", "models", "optimizer", "task")
"""Attributes with a state of their own."""
log = logging.getLogger(__name__)
download = task_of  # a task reads its data, which fetches it into the cache


def cost(settings: Settings) -> float:
    """Estimated time of a run, up to a factor: the networks are small, so it grows with the number of calls."""
    return settings.steps * (settings.T + 3) * (1 if settings.method in ("frozen", "bptt") else 2)


def show(settings: Settings) -> str:
    """An example of the task."""
    return task_of(settings).show()


class RecurrentTraining:
    """Core, read-out, gradient models and the task's stream; a step is one update."""

    def __init__(self, settings: Settings):
        self.settings = s = settings
        self.task = task_of(s)
        self.measure = MEASURES[s.recipe].point
        torch.manual_seed(s.seed)
        self.net = networks.Core(s.cell, self.task.inputs, s.width, self.task.outputs, s.layers).to(s.run.device)
        if s.method == "frozen":
            self.net.core.requires_grad_(False)
        self.future = networks.interface_for(s, self.task).to(s.run.device) if s.synthetic else None
        self.head = self.auxiliary = self.traces = None
        if s.method == "local-loss":
            self.head = networks.target_head(s, self.task)
        if s.method == "dni-aux":
            self.auxiliary = AuxiliaryTask(networks.gradient_model(s, self.task), s.model.aux_weight)
        if s.model.traces is not None and self.future is not None:
            self.traces = EligibilityTraces(self.future, s.model.traces)
        models = (m for m in (self.head, self.future, self.auxiliary) if m is not None)
        self.models = nn.ModuleList(models).to(s.run.device)
        core, model = ([p for p in each.parameters() if p.requires_grad] for each in (self.net.core, self.models))
        self.optimizer = adam(core, model, s)
        rate = s.optimizer.lr if s.optimizer.read_out_lr is None else s.optimizer.read_out_lr
        self.optimizer.add_param_group({"params": self.net.read_out.parameters(), "lr": rate, "initial_lr": rate})
        self.state: Any = None
        self.context: Tensor | None = None
        self.below_zero = 0

    def step(self, done: int) -> float | None:
        """One update, after ``done`` updates; returns the loss per step that has one, if any step has."""
        self._schedule(done)
        total, counted, ended = 0.0, 0, False
        while not ended:
            chunk = self.task.chunk()
            loss, value = self._chunk(chunk)
            loss.backward()
            if self.state is not None:
                self.state = tree_map(torch.Tensor.detach, self.state)
            total, counted = total + value, counted + int(chunk.counts.sum())
            ended = chunk.ends or self.settings.per == "chunk"
        if self.settings.optimizer.clip is not None:
            nn.utils.clip_grad_norm_(self.net.parameters(), self.settings.optimizer.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return total / counted if counted else None

    def _chunk(self, chunk: Chunk) -> tuple[Tensor, float]:
        """A chunk's loss to differentiate, and the task's own, summed over its steps."""
        loss, per_step, state, self.context = self._run(chunk, self.state, self.context)
        if self.traces is not None:
            self.traces.carry(state)
        self.state = None if chunk.ends else state
        value = per_step.detach().sum().item()
        self.task.observe_loss(value, int(chunk.counts.sum()), chunk.ends)
        return loss, value

    def _run(self, chunk: Chunk, state: Any, context: Any) -> tuple[Tensor, Tensor, Any, Any]:
        """A chunk's loss to differentiate, the task's own at each step, and the next chunk's state and context."""
        s, future = self.settings, self.future
        x, y, counts = (t.to(s.run.device) for t in (chunk.x, chunk.y, chunk.counts))
        if future is not None:
            state = future.receive(state, context)
        out, state = self._unrolled(x, state)
        coming = None if chunk.coming is None else chunk.coming.flatten(1).to(s.run.device)
        per_step = self.task.losses(out, y).mean(1) * counts
        loss = per_step.sum() / s.T  # a sum, so that each step weighs the same in a shorter chunk, too
        if future is not None and not chunk.ends:
            context = x[-1] if s.model.context else coming
            loss = loss + future.send(state, context)
            if self.auxiliary is not None:
                loss = loss + self.auxiliary(future)
        if self.head is not None and coming is not None and not chunk.ends:
            seen = pack(state, only=networks.visible_leaves(s))
            loss = loss + networks.later_losses(s, self.task)(self.head(seen), coming).mean()
        return loss, per_step, state, context

    def _unrolled(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Run all steps at once, or one at a time where an interface stands between them."""
        if self.settings.method != "bp-lambda" or self.future is None:
            return self.net(x, state)
        outs = []
        for t in range(len(x)):
            if t:
                state = self.future(state, x[t - 1] if self.settings.model.context else None)
            out, state = self.net(x[t : t + 1], state)
            outs.append(out)
        return torch.cat(outs), state

    def _schedule(self, done: int) -> None:
        """Set learning rates, and begin lesions."""
        s, share = self.settings, done / self.settings.steps
        set_learning_rates(self.optimizer, s.optimizer.decay, share)
        if share < s.optimizer.warm_up:
            self.optimizer.param_groups[0]["lr"] *= share / s.optimizer.warm_up
        if self.future is not None:
            if share >= s.model.use_until:
                self.future.scale, self.future.interface.lam = 0.0, 1.0
            if share >= s.model.learn_until:
                self.optimizer.param_groups[1]["lr"] = 0.0

    @torch.no_grad()
    def evaluate(self, test: bool = False) -> dict[str, float]:
        """The task's measures on validation or test data."""

        def network(x: Tensor) -> Tensor:
            outs, state = [], None
            for piece in x.split(PIECE):  # long sequences need memory
                out, state = self.net(piece.to(self.settings.run.device), state)
                outs.append(out.cpu())
            return torch.cat(outs)

        return self.task.evaluate(network, test)

    def quality(self) -> dict[str, dict[str, float]]:
        """The last synthetic gradient against its target, and those of a probe against full backpropagation."""
        if self.future is None or self.future.quality is None:
            return {}
        trust = {"trust": self.future.slope.item()} if self.settings.model.trust else {}
        state = {**dataclasses.asdict(self.future.quality), "r2": self.future.r2, **trust}
        found = enumerate(self.future.probe(self._probe)[:PROBED], 1)
        return {"state": state, **{f"boundary {k}": dataclasses.asdict(true) for k, true in found}}

    def _probe(self) -> Tensor:
        """The loss of a new episode, or of the stream's next chunks; leaves the task unchanged."""
        task, kept = self.task, self.task.state_dict()
        losses, state, context = [], self.state, self.context
        if isinstance(task, Episodes):
            task.episode, state = (), None
        try:
            for _ in range(2 * PROBED):  # as many chunks after the last reported boundary as before it
                chunk = task.chunk()
                loss, _, state, context = self._run(chunk, state, context)
                losses.append(loss)
                if chunk.ends:
                    break
        finally:
            task.load_state_dict(kept)
        return torch.stack(losses).sum()

    def point(self) -> dict[str, Any]:
        """The task's measures on validation data, and the quality of M."""
        quality = self.quality()
        r2 = quality["state"]["r2"] if quality else 0.0
        self.below_zero = self.below_zero + 1 if r2 < -0.01 else 0
        if self.below_zero == WARN_AFTER:
            log.warning("R² of the synthetic gradient stays below zero (%.2f): try a lower scale or lr", r2)
        return {**self.evaluate(), "quality": quality}

    def result(self, seconds: float, measure: float) -> dict[str, Any]:
        """The record's last line; evaluates on test data."""
        s = self.settings
        return {
            **{key: getattr(s, key) for key in ("recipe", "method", "T", "cell", "width", "seed", "steps")},
            "sequences": self.task.sequences,
            "seconds": seconds,
            "seconds_per_step": seconds / s.steps,
            **self.evaluate(test=True),
            "validation": measure,
            "parameters": sum(p.numel() for p in self.net.parameters()),
            "model_parameters": sum(p.numel() for p in self.models.parameters() if p.requires_grad),
            "quality": self.quality(),
        }

    def events(self) -> list[dict[str, Any]]:
        """None: a chunk has no timeline of layers."""
        return []

    def state_dict(self) -> dict[str, Any]:
        """Everything that a later update depends on."""
        parts = {name: getattr(self, name).state_dict() for name in PARTS}
        traces = self.traces.traces if self.traces else None
        return {**parts, "state": self.state, "context": self.context, "traces": traces}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a ``state_dict``."""
        for name in PARTS:
            getattr(self, name).load_state_dict(state[name])
        self.state, self.context = state["state"], state["context"]
        if self.traces:
            self.traces.traces = state["traces"]


start = RecurrentTraining
