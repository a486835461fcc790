"""Traces against λ-returns by hand: M is frozen, so the forward and the backward view must agree."""

import math

import pytest
import torch
from torch import nn
from torch.autograd.functional import jacobian

from synthgrad import EligibilityTraces, Interface, RecurrentInterface
from synthgrad.models import MLP, Conv, Linear

F64 = torch.float64
CHUNKS, T, BATCH, IN, UNITS = 4, 3, 3, 2, 4
NEVER = torch.zeros(CHUNKS, BATCH).bool()
SOME = torch.tensor([[0, 1, 0], [0, 0, 1], [0, 1, 1], [0, 0, 0]]).bool()
MODELS = {
    "linear": lambda: Linear(UNITS),
    "linear, label": lambda: Linear(UNITS, context=3),
    "mlp": lambda: MLP(UNITS, hidden=6, depth=1),
    "mlp, label": lambda: MLP(UNITS, hidden=6, depth=1, context=3),
}
every_model = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())


class Episode:
    """A core and a warm M, both frozen; some rows restart at chunk ends, and the last chunk sends nothing."""

    def __init__(self, make, ends=NEVER):
        self.core, self.model, self.ends = nn.RNN(IN, UNITS).double(), make().double(), ends
        for p in self.model.parameters():
            nn.init.normal_(p, std=0.5)
        self.x, self.first = torch.randn(CHUNKS, T, BATCH, IN, dtype=F64), torch.randn(BATCH, UNITS, dtype=F64)
        self.contexts = [(torch.arange(BATCH) + k) % 3 for k in range(CHUNKS)]

    def found(self, lam, gamma=1.0, scale=1.0):
        """The gradients of M's parameters, from the library."""
        future = RecurrentInterface(Interface(self.model, unit=1.0), scale, gamma)
        return self.learnt(future, EligibilityTraces(future, lam), self.first[None])

    def learnt(self, future, traces, state):
        self.model.zero_grad()
        for k in range(CHUNKS):
            state = future.receive(state, self.contexts[k], self.ends[k - 1] if k else None)
            out, state = self.core(self.x[k], state)
            loss = out.sin().sum() / BATCH
            if k + 1 < CHUNKS:
                loss = loss + future.send(state, self.contexts[k + 1], self.ends[k])
            traces.carry(state, self.ends[k])
            loss.backward()
        return [p.grad for p in self.model.parameters()]

    def chunk(self, k, h):
        """The chunk's loss and its last state, by hand."""
        begin = h.masked_fill(self.ends[k - 1][:, None], 0.0) if k else h
        out, end = self.core(self.x[k], begin[None])
        return out.sin().sum() / BATCH, end[0]

    def starts(self):
        """The states at the boundaries, before any row restarts."""
        h = [self.first]
        for k in range(CHUNKS - 1):
            h.append(self.chunk(k, h[-1])[1].detach())
        return h

    def true(self):
        """δ at every boundary, by full backpropagation through time."""
        loss, seen = 0, [self.first.requires_grad_()]
        for k in range(CHUNKS):
            of_chunk, end = self.chunk(k, seen[-1])
            loss, seen = loss + of_chunk, [*seen, end]
        return torch.autograd.grad(loss, seen[:-1])

    def returns(self, lam, gamma=1.0):
        """G_k = a_k + γ J_kᵀ [(1-λ) M(h_{k+1}) + λ G_{k+1}]; zero after the last chunk or an end."""
        h, G = self.starts(), [torch.zeros(BATCH, UNITS, dtype=F64)] * (CHUNKS + 1)
        for k in reversed(range(CHUNKS)):
            G[k] = jacobian(lambda h, k=k: self.chunk(k, h)[0], h[k])
            if k + 1 < CHUNKS:
                J = jacobian(lambda h, k=k: self.chunk(k, h)[1], h[k])
                ahead = (1 - lam) * self.model(h[k + 1], self.contexts[k + 1]).detach() + lam * G[k + 1]
                G[k] = G[k] + gamma * torch.einsum("binj,bi->nj", J, ahead.masked_fill(self.ends[k][:, None], 0.0))
        return G[:CHUNKS]

    def expected(self, targets, plain=None):
        """The gradients of M's parameters regressed on these at the boundaries; hidden layers on others."""
        found = []
        for each in (targets, plain or self.returns(0.0)):
            starts = zip(self.starts(), self.contexts, each, strict=True)
            loss = sum((self.model(h, c) - target).square().sum() / BATCH for h, c, target in starts)
            found.append(torch.autograd.grad(loss, list(self.model.parameters())))
        last = {id(p) for p in self.model.last()}
        return [a if id(p) in last else b for p, a, b in zip(self.model.parameters(), *found, strict=True)]


@every_model
def test_with_lam_1_m_is_regressed_on_the_true_gradient(equal, make):
    episode = Episode(make)
    assert equal(episode.found(1.0), episode.expected(episode.true()), 1e-12)


@every_model
@pytest.mark.parametrize("ends", [NEVER, SOME], ids=["one episode", "some end"])
@pytest.mark.parametrize("gamma", [1.0, 0.9])
@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0])
def test_m_is_regressed_on_the_lambda_return(equal, make, lam, gamma, ends):
    episode = Episode(make, ends)
    plain, returns = episode.returns(0.0, gamma), episode.returns(lam, gamma)
    assert equal(episode.found(lam, gamma), episode.expected(returns, plain), 1e-12)
    assert (lam == 0) == equal(plain, returns, 1e-6)


@pytest.mark.parametrize("scale", [0.1, 0.0])
def test_scale_touches_nothing(equal, scale):
    episode = Episode(MODELS["mlp"])
    assert equal(episode.found(0.5, scale=scale), episode.found(0.5), 1e-12)


def test_an_episode_without_a_first_state_has_no_traces_of_the_previous_one(equal):
    episode = Episode(MODELS["linear, label"])
    future = RecurrentInterface(Interface(episode.model, unit=1.0))
    traces = EligibilityTraces(future, 1.0)
    alone, after = (episode.learnt(future, traces, None) for _ in range(2))
    assert equal(alone, after)


def test_a_gradient_that_is_not_finite_teaches_nothing(equal):
    episode = Episode(MODELS["linear"])
    future = RecurrentInterface(Interface(episode.model, unit=1.0))
    traces, state, found = EligibilityTraces(future, 0.5), episode.first[None], []
    for k, factor in enumerate((1.0, math.nan)):
        loss, end = episode.chunk(k, future.receive(state)[0])
        loss, state = loss + future.send(end[None]), end[None]
        traces.carry(state)
        (factor * loss).backward()
        found.append([p.grad.clone() for p in episode.model.parameters()])
    assert equal(*found)


@every_model
def test_a_model_may_be_single_and_its_core_double_precision(equal, make):
    episode = Episode(make)
    expected = episode.found(0.5)
    episode.model.float()
    assert equal([p.double() for p in episode.found(0.5)], expected, 1e-4)


def test_eval_teaches_nothing():
    episode = Episode(MODELS["linear"])
    future = RecurrentInterface(Interface(episode.model, unit=1.0))
    traces = EligibilityTraces(future, 1.0)
    episode.learnt(future, traces, episode.first[None])
    episode.model.zero_grad()
    future.eval()
    loss, end = episode.chunk(0, future.receive(episode.first[None])[0])
    traces.carry(end[None])
    loss.backward()
    assert all(p.grad is None for p in episode.model.parameters())


def test_refused():
    with pytest.raises(TypeError, match="traces need an MLP or Linear as gradient model, not Conv"):
        EligibilityTraces(RecurrentInterface(Interface(Conv(3))), 0.5)
    for lam in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=f"lam is {lam}; it must be from 0"):
            EligibilityTraces(RecurrentInterface(Interface(Linear(3))), lam)


def test_a_fused_call_is_refused():
    future = RecurrentInterface(Interface(Linear(UNITS), lam=0.5))
    traces = EligibilityTraces(future, 0.5)
    state = future(future.receive(torch.randn(1, BATCH, UNITS, requires_grad=True)))
    with pytest.raises(ValueError, match="traces and a fused call inside a chunk"):
        traces.carry(state)
