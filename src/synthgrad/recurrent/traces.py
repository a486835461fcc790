"""Eligibility traces for M: the gradient at a chunk's start also teaches M about earlier states."""

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
    r"""Online λ-returns for a gradient model: Pemberton and Costa's BP(λ), which is not that of Jaderberg et al.

    M's plain target contains M's next prediction in full, a bias that fades only as fast as M learns, chunk by
    chunk. With traces, the error at the start of chunk k

        e_k = ∂L_k/∂h_k + γ J_kᵀ M(h_{k+1}) - M(h_k),   J_k = ∂h_{k+1}/∂h_k

    also teaches M about every earlier state that led here: M's last layer W φ(h) gets Σ_k E_kᵀ e_k with
    E_k = γλ J_{k-1} E_{k-1} + ∂M(h_k)/∂W. λ = 0 is the plain bootstrap; λ = 1 regresses M on the true gradient.
    Where ``limit`` or ``trust`` scale M's prediction by a factor, that factor is part of γ.

    Costs: J takes one backward pass per chunk and unit of the state, E has units² x features numbers per example,
    and each chunk takes units³ x features multiplications. Use it for small states, or to find out whether the
    bootstrap's bias limits a run.

    Args:
        future: its gradient model is an ``MLP`` (or ``Linear``) without batch norm; the last layer gets traces,
            hidden layers learn from the plain target.
        lam: λ, from 0 to 1.

    Example:
        >>> traces = EligibilityTraces(future, lam=0.9)
        >>> loss = criterion(out, y) + future.send(state)
        >>> traces.carry(state)
        >>> loss.backward()

    References:
        Pemberton and Costa 2024, "BP(λ): online learning via synthetic gradients", eqs. for δ_t and E_t.
    """

    def __init__(self, future: RecurrentInterface, lam: float):
        model = future.interface.gradient_model
        if not isinstance(model, MLP):
            raise TypeError(f"traces need an MLP or Linear as gradient model, not {type(model).__name__}")
        if any(isinstance(norm, nn.BatchNorm1d) for norm in model.norms):
            raise TypeError("traces need a gradient model without batch norm, which mixes the examples")
        if not 0 <= lam <= 1:
            raise ValueError(f"lam is {lam}; it must be from 0 (plain bootstrap) to 1 (true gradients)")
        self.future, self.model, self.lam = future, model, lam
        self.traces: Tensor | None = None
        """γλ J E of the chunks so far, shape (batch, units, units, features)."""

    def carry(self, state: Any, done: Tensor | None = None) -> None:
        """Extend the traces by a chunk; call it after ``send`` and before ``backward()``.

        Args:
            state: as the chunk leaves it.
            done: examples whose episode ends here, shape (batch,): their traces end, too.

        Raises:
            ValueError: after a fused call inside the chunk, because the path to the chunk's start then runs
            through M.
        """
        start = self.future.start
        if start is not None and start.chunk.fused:
            raise ValueError("traces and a fused call inside a chunk both spread M's errors; use one of them")
        if start is None:
            self.traces = None
            return
        if self.future.answer is not None and not self.future.paired:
            raise ValueError("the chunk sent last is not the one received last; traces follow one stream")
        earlier = self.traces
        features = self._features(start.message.detach(), start.context)
        if earlier is not None:
            self._teach(start, earlier)
        units = start.message.shape[1]
        eligible = torch.einsum("ij,bf->bijf", torch.eye(units).to(features), features)
        if earlier is not None:
            eligible = eligible + earlier
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

    def _teach(self, start: Start, earlier: Tensor) -> None:
        """When δ arrives, add its gradient for earlier states to that of M's last layer."""
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
            if chunk.rows is not None and chunk.sent:  # their gradient is incomplete
                error = error.masked_fill(chunk.rows[:, None], 0.0)
            traces._add(torch.einsum("bi,bijf->jf", error, earlier) * (2 / max(len(error), 1)))

        message.register_hook(arrived)

    def _features(self, h: Tensor, context: Any) -> Tensor:
        """φ: the input of M's last layer, with a constant 1 appended."""
        with torch.no_grad():
            return self.model.features_of(h.to(self.model.last()[0].dtype), context).to(h.dtype)

    def _add(self, gradient: Tensor) -> None:
        """Split a gradient over φ by the last layer's parameters, and add it to theirs."""
        parameters = self.model.last()
        widths = [p.shape[1] if p.dim() == 2 else 1 for p in parameters]
        for p, part in zip(parameters, gradient.split(widths, dim=1), strict=True):
            if not p.requires_grad:
                continue
            part = part.view_as(p).to(p.dtype)
            p.grad = part.clone() if p.grad is None else p.grad + part
