"""Eligibility traces for M: what arrives at a chunk's start also teaches M about the states before it."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn

from synthgrad.interface.autograd import pull_back
from synthgrad.interface.message import predict
from synthgrad.models import MLP
from synthgrad.recurrent.chunk import Start
from synthgrad.recurrent.recurrent import RecurrentInterface
from synthgrad.recurrent.state import pack


class EligibilityTraces:
    r"""Online λ-returns for a gradient model: Pemberton and Costa's BP(λ), another thing than the paper's.

    M's plain target trusts M's next answer wholly; that bias fades only as fast as M learns, chunk by chunk.
    With traces, the error at the start of chunk k

        e_k = ∂L_k/∂h_k + γ J_kᵀ M(h_{k+1}) - M(h_k),   J_k = ∂h_{k+1}/∂h_k

    also moves M for every earlier state that led here: M's last layer W φ(h) gets Σ_k E_kᵀ e_k with
    E_k = γλ J_{k-1} E_{k-1} + ∂M(h_k)/∂W. λ = 0 is the plain bootstrap; λ = 1 regresses M on the true gradient.
    Where ``limit`` or ``trust`` shorten M's answer by a factor, that factor is part of γ.

    The cost is plain: J takes one backward pass per unit of the state and chunk, E holds units² x features numbers
    per example, and carrying it on costs units³ x features multiplications. It is for small states, or for finding
    out whether the bootstrap's bias is what holds a run back.

    Args:
        future: its gradient model is an ``MLP`` (or ``Linear``) without batch norm; the last layer gets traces,
            hidden layers learn from the plain target.
        lam: λ, from 0 to 1.

    Example:
        >>> traces = Traces(future, lam=0.9)
        >>> loss = criterion(out, y) + future.send(state)
        >>> traces.carry(state)
        >>> loss.backward()

    References:
        Pemberton and Costa 2024, "BP(λ): online learning via synthetic gradients", eqs. for δ_t and E_t.
    """

    def __init__(self, future: RecurrentInterface, lam: float):
        model = future.interface.gradient_model
        if not isinstance(model, MLP):
            raise TypeError(f"traces want an MLP or Linear as gradient model, not {type(model).__name__}")
        if any(isinstance(norm, nn.BatchNorm1d) for norm in model.norms):
            raise TypeError("traces want a gradient model without batch norm, which mixes the examples")
        if not 0 <= lam <= 1:
            raise ValueError(f"lam is {lam}; it must be from 0 (plain bootstrap) to 1 (true gradients)")
        self.future, self.model, self.lam = future, model, lam
        self.traces: Tensor | None = (
            None  # γλ J E, shape (batch, units, units, features): what earlier states are owed
        )

    def carry(self, state: Any, done: Tensor | None = None) -> None:
        """Call it after ``send`` and before ``backward()``: teach earlier states, take this chunk along.

        Args:
            state: as the chunk leaves it.
            done: for which examples the episode ends here: their traces end, too.

        Raises:
            ValueError: after a fused call inside the chunk, for then the way to the chunk's start leads through M.
        """
        start = self.future.start
        if start is not None and start.chunk.fused:
            raise ValueError("traces and a fused call inside a chunk both spread M's errors; use one of them")
        if start is None:
            self.traces = None
            return
        if self.future.answer is not None and not self.future.paired:
            raise ValueError("the chunk sent last is not the one received last; traces follow one stream")
        owed = self.traces
        features = self._features(start.message.detach(), start.context)
        if owed is not None:
            self._teach(start, owed)
        units = start.message.shape[1]
        eligible = torch.einsum("ij,bf->bijf", torch.eye(units).to(features), features)
        if owed is not None:
            eligible = eligible + owed
        end = pack(state, self.future.batch_dim, self.future.only)
        jacobian = torch.stack([self._row(end, start.message, i) for i in range(units)], dim=1)
        decay = self.future.gamma * self.lam * self.future.factor
        self.traces = torch.einsum("bki,bijf->bkjf", decay * jacobian, eligible)
        if done is not None:
            self.traces = self.traces.masked_fill(done.bool().view(-1, 1, 1, 1), 0.0)

    def _row(self, end: Tensor, start: Tensor, i: int) -> Tensor:
        """∂(unit i of the end)/∂start of each example."""
        unit = torch.zeros_like(end)
        unit[:, i] = 1.0
        found = pull_back(end, start, unit) if end.requires_grad else None
        return torch.zeros_like(start) if found is None else found

    def _teach(self, start: Start, owed: Tensor) -> None:
        """When δ arrives, add what it says about earlier states to the gradient of M's last layer."""
        message, chunk = start.received, start.chunk
        with torch.no_grad():
            answer = predict(self.model, message, start.context)
        counted: list[bool] = []
        me = weakref.ref(self)  # a hook that holds its own tensor, or its owner, is never freed

        def arrived(delta: Tensor) -> None:
            traces = me()
            if traces is None or not delta.isfinite().all():
                return
            unit = traces.future.interface.units.for_batch(len(delta)) or 1.0
            # The constant part counts once, however many gradients arrive; this hook runs after the chunk's own.
            error = (answer if not counted else 0.0) - delta / unit
            counted.append(True)
            if chunk.rows is not None and chunk.sent:  # something is missing in their gradient
                error = error.masked_fill(chunk.rows[:, None], 0.0)
            traces._add(torch.einsum("bi,bijf->jf", error, owed) * (2 / max(len(error), 1)))

        message.register_hook(arrived)

    def _features(self, h: Tensor, context: Any) -> Tensor:
        """φ: what M's last layer sees, a constant 1 behind it."""
        with torch.no_grad():
            return self.model.features_of(h.to(self.model.last()[0].dtype), context).to(h.dtype)

    def _add(self, gradient: Tensor) -> None:
        """Split a gradient over φ into those of the last layer's parameters, and add them up there."""
        parameters = self.model.last()
        widths = [p.shape[1] if p.dim() == 2 else 1 for p in parameters]
        for p, part in zip(parameters, gradient.split(widths, dim=1), strict=True):
            if not p.requires_grad:
                continue
            part = part.view_as(p).to(p.dtype)
            p.grad = part.clone() if p.grad is None else p.grad + part
