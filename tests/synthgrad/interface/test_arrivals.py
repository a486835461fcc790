"""One message, several gradients, other passes in between: M learns as from one backward pass of the sum."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from synthgrad import Critic, Interface
from synthgrad.models import MLP, Linear

F64 = torch.float64
MODELS = {"linear": lambda: Linear(4), "mlp": lambda: MLP(4, hidden=3), "critic": lambda: Critic(nn.Linear(4, 2))}
every_model = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())


def warm(make, **settings):
    interface = Interface(make(), **settings).double()
    for p in interface.parameters():
        nn.init.normal_(p, std=0.3)
    if make is not MODELS["critic"]:
        interface.units.observe(torch.tensor(0.1), 8)
    return interface


def taught(interface):
    return [p.grad for p in interface.gradient_model.parameters()]


def run(interface, split, verb, seed=1):
    """The gradients of A, of B and of M; two losses in one backward pass or in two, over one graph."""
    torch.manual_seed(seed)
    A, B = nn.Linear(4, 4).double(), nn.Linear(4, 2).double()
    x, y = torch.randn(8, 4, dtype=F64), torch.arange(8) % 2
    h = A(x)
    if verb == "receive":
        interface.send(h, y).backward(retain_graph=True)
    out = B(interface(h, y) if verb == "fused" else interface.receive(h, y))
    losses = [F.cross_entropy(out, y), out.square().mean(), out[:, 0].sin().mean()]
    if split:
        for k, loss in enumerate(losses):
            loss.backward(retain_graph=k < 2)
    else:
        sum(losses).backward()
    return [p.grad.clone() for module in (A, B, interface.gradient_model) for p in module.parameters()]


@every_model
@pytest.mark.parametrize(("verb", "lam"), [("receive", 0.0), ("fused", 0.0), ("fused", 0.4), ("fused", 1.0)])
def test_split_backward_passes_add_up_to_one(equal, make, verb, lam):
    interface = warm(make, lam=lam)
    twin = copy.deepcopy(interface)
    assert equal(run(interface, True, verb), run(twin, False, verb), 1e-9)
    torch.testing.assert_close(interface.unit, twin.unit)
    torch.testing.assert_close(interface.regression_loss, twin.regression_loss)
    if interface.target is not None:
        assert interface.target.gradients == twin.target.gradients


@every_model
def test_two_receivers_of_one_message_teach_its_whole_gradient(equal, make):
    interface = warm(make)
    twin = copy.deepcopy(interface)
    h, y = torch.randn(8, 4, dtype=F64), torch.arange(8) % 2
    a, b = nn.Linear(4, 2).double(), nn.Linear(4, 2).double()
    for _ in range(2):  # a second step is a message of its own
        for each in (interface, twin):
            each.zero_grad()
        (a(interface.receive(h, y)).square().mean() + b(interface.receive(h, y)).sin().mean()).backward()
        received = twin.receive(h, y)
        (a(received).square().mean() + b(received).sin().mean()).backward()
        assert equal(taught(interface), taught(twin), 1e-9)


@every_model
@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0])
def test_a_look_leaves_no_trace(equal, make, lam):
    interface = warm(make, lam=lam, target_every=1)
    before = copy.deepcopy(interface.state_dict())
    A = nn.Linear(4, 4).double()
    x, y = torch.randn(8, 4, dtype=F64, requires_grad=True), torch.arange(8) % 2
    out = interface(A(x), y).square().sum()
    (saliency,) = torch.autograd.grad(out, x, retain_graph=True)
    torch.autograd.grad(out, list(A.parameters()), retain_graph=True)
    interface.synthetic_gradient(A(x).detach(), y)
    assert saliency.any()
    assert equal(list(interface.state_dict().values()), list(before.values()))
    assert all(p.grad is None for p in interface.parameters())
    twin = copy.deepcopy(interface)
    out.backward()  # the real pass is the first arrival
    twin(A(x), y).square().sum().backward()
    assert equal(taught(interface), taught(twin), 1e-12)


def test_looking_moves_neither_batch_norm_nor_the_random_state():
    model = nn.Sequential(MLP(4, batch_norm=True))
    model.append(nn.Dropout(0.5))

    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = model

        def forward(self, h, context=None):
            return self.net(h)

    interface = Interface(M())
    before, state = copy.deepcopy(interface.state_dict()), torch.get_rng_state()
    interface.synthetic_gradient(torch.randn(8, 4, generator=torch.Generator().manual_seed(0)) + 3)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in interface.state_dict().items())


def test_a_message_moves_batch_norm_once():
    interfaces = [Interface(MLP(4, batch_norm=True)) for _ in range(2)]
    interfaces[1].load_state_dict(interfaces[0].state_dict())
    h = torch.randn(8, 4, requires_grad=True)
    interfaces[0].send(h)
    for interface in interfaces:
        interface.receive(h)
    assert all(torch.equal(a, b) for a, b in zip(*(i.buffers() for i in interfaces), strict=True))


@pytest.mark.parametrize("lam", [0.0, 0.3, 1.0])
def test_double_backward_is_that_of_the_mixture(equal, lam):
    """A gradient penalty through a fused call: δ̂ is a constant, δ is differentiated again."""
    found = []
    for way in ("interface", "by hand"):
        torch.manual_seed(2)
        A, B = (nn.Sequential(nn.Linear(4, 4), nn.Tanh()).double() for _ in range(2))
        interface = Interface(Linear(4), lam=lam, unit=1.0).double()
        nn.init.normal_(interface.gradient_model.layers[0].weight)
        x = torch.randn(6, 4, dtype=F64, requires_grad=True)
        h = A(x)
        if way == "interface":
            (g,) = torch.autograd.grad(B(interface(h)).square().sum(), x, create_graph=True)
        else:
            leaf = h.detach().requires_grad_()
            (delta,) = torch.autograd.grad(B(h).square().sum(), h, create_graph=True)
            mixed = lam * delta + (1 - lam) * interface.gradient_model(leaf, None).detach()
            (g,) = torch.autograd.grad(h, x, mixed, create_graph=True)
        if lam in (0.0, 1.0):  # in between the penalty's own way back through h is mixed, too
            found.append(torch.autograd.grad(g.square().sum(), list(A.parameters()), allow_unused=True))
        else:
            found.append([g.detach()])
    pairs = [(a, b) for a, b in zip(*found, strict=True) if b is not None and a is not None]
    assert pairs
    assert equal(*map(list, zip(*pairs, strict=True)), 1e-9)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("make", [MODELS["mlp"], MODELS["critic"]], ids=["mlp", "critic"])
def test_checkpoints_around_either_end_change_nothing(equal, make, reentrant):
    grads = []
    for checkpointed in (False, True):
        torch.manual_seed(3)
        interface, A, B = warm(make), nn.Linear(4, 4).double(), nn.Linear(4, 2).double()
        x, y = torch.randn(8, 4, dtype=F64, requires_grad=True), torch.arange(8) % 2

        def sends(x, A=A, interface=interface, y=y):
            h = torch.tanh(A(x))
            return h, interface.send(h, y)

        def receives(h, B=B, interface=interface, y=y):
            return B(interface.receive(h, y))

        for _ in range(2):
            if checkpointed:
                h, term = checkpoint(sends, x, use_reentrant=reentrant)
                term.backward()
                message = h.detach().requires_grad_()
                out = checkpoint(receives, message, use_reentrant=reentrant)
            else:
                h, term = sends(x)
                term.backward()
                out = receives(h.detach())
            F.cross_entropy(out, y).backward()
        grads.append([p.grad for module in (A, B, interface) for p in module.parameters()])
    assert equal(*grads)


@pytest.mark.parametrize("critics", [1, 4])
def test_a_checkpointed_region_with_critics_runs_twice(critics):
    runs = []

    class Part(nn.Linear):
        def forward(self, x):
            runs.append(1)
            return super().forward(x)

    parts = [Part(4, 4) for _ in range(critics)]
    interfaces = [Interface(Critic(nn.Linear(4, 2))) for _ in parts]
    x, y = torch.randn(8, 4, requires_grad=True), torch.arange(8) % 2

    def region(x):
        for part, interface in zip(parts, interfaces, strict=True):
            x = interface(part(x), y)
        return x

    checkpoint(region, x, use_reentrant=False).square().sum().backward()
    assert len(runs) <= 2 * critics
