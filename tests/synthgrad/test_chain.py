"""A chain that learns part by part is the fused chain, and Fig. 2; completely unlocked, Fig. 6."""

import copy
import itertools

import pytest
import torch
from torch import nn

from synthgrad import Interface, completely_unlocked, fused, unlocked
from synthgrad.models import Linear


def test_exact_model_is_backprop(chain, equal):
    interfaces = chain.exact_interfaces()
    for _k, loss in unlocked(chain.parts, interfaces, chain.x, chain.criterion):
        loss.backward()
    assert equal(chain.take_grads(), chain.backprop(), 1e-10)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_updates_at_once_are_one_backward_and_a_simultaneous_step(chain, equal, optimizer, scale):
    """Bit for bit: a part's message, and so its model's answer, is made before that part moves."""
    interfaces = chain.interfaces(scale=scale)
    parts, twins = copy.deepcopy(chain.parts), copy.deepcopy(interfaces)
    own = [
        optimizer([*part.parameters(), *(twins[k - 1].parameters() if k else [])], lr=0.01)
        for k, part in enumerate(parts)
    ]
    together = optimizer([*chain.parameters(), *(p for i in interfaces for p in i.parameters())], lr=0.01)
    for _ in range(8):
        for k, loss in unlocked(parts, twins, chain.x, chain.criterion, chain.y):
            own[k].zero_grad()
            loss.backward()
            own[k].step()
        together.zero_grad()
        chain.criterion(fused(chain.parts, interfaces, chain.x, chain.y)).backward()
        together.step()
    assert equal([p for m in parts for p in m.parameters()], chain.parameters())
    assert equal([p for i in twins for p in i.parameters()], [p for i in interfaces for p in i.parameters()])


def test_yields_each_part_once_with_the_task_loss_last(chain):
    steps = list(unlocked(chain.parts, chain.interfaces(), chain.x, chain.criterion, chain.y))
    assert [k for k, _ in steps] == [0, 1, 2, 3]
    assert torch.equal(steps[-1][1], chain.criterion(chain.run(chain.x)))


def test_a_part_runs_only_when_its_loss_is_requested(chain):
    ran = []
    parts = [lambda h, k=k, part=part: (ran.append(k), part(h))[1] for k, part in enumerate(chain.parts)]
    steps = unlocked(parts, chain.interfaces(), chain.x, chain.criterion, chain.y)
    for expected in ([0], [0, 1], [0, 1, 2]):
        next(steps)
        assert ran == expected


def test_a_loss_reaches_its_own_part_only(chain):
    interfaces = chain.interfaces()
    for k, loss in unlocked(chain.parts, interfaces, chain.x, chain.criterion, chain.y):
        loss.backward()
        for other, module in enumerate(chain.parts):
            assert all((p.grad is not None) == (other == k) for p in module.parameters())
        for other, module in enumerate(interfaces):  # part k teaches the model of the edge below it
            assert all((p.grad is not None) == (other == k - 1) for p in module.parameters())
        for module in (*chain.parts, *interfaces):
            module.zero_grad(set_to_none=True)


def test_parts_and_models_may_be_stepped_in_any_order(chain):
    """Without a real backward pass in between, nothing fails: sparse updates."""
    interfaces = [Interface(Linear(5, context=3)).double() for _ in range(3)]
    for n in range(6):
        for k, loss in unlocked(chain.parts, interfaces, chain.x, chain.criterion, chain.y):
            if (n + k) % 2:
                loss.backward()
    assert all(p.grad is not None for p in chain.parameters())


def test_one_part_needs_no_interface(chain):
    ((k, loss),) = unlocked([chain.run], [], chain.x, chain.criterion)
    assert k == 0
    assert torch.equal(loss, chain.criterion(chain.run(chain.x)))
    assert torch.equal(fused([chain.run], [], chain.x), chain.run(chain.x))


@pytest.mark.parametrize("count", [2, 4])
def test_wrong_number_of_interfaces(chain, count):
    interfaces = [Interface(Linear(5)) for _ in range(count)]
    with pytest.raises(ValueError, match=f"4 parts need 3 interfaces between them, not {count}"):
        next(unlocked(chain.parts, interfaces, chain.x, chain.criterion))
    with pytest.raises(ValueError, match="4 parts need 3"):
        fused(chain.parts, [Interface(lambda h, c: h) for _ in range(count)], chain.x)


def test_nothing_is_learnt_from_a_model_before_its_first_gradient(chain):
    """Even if the model does not start at zero: a part learns once gradients have come down to it."""
    interfaces = chain.interfaces()
    for step in range(4):
        for k, loss in unlocked(chain.parts, interfaces, chain.x, chain.criterion, chain.y):
            loss.backward()
            assert any((p.grad != 0).any() for p in chain.parts[k].parameters()) == (k >= 3 - step)
            chain.parts[k].zero_grad()
    fresh, h = chain.interfaces()[0], chain.x.requires_grad_()
    fresh(h, chain.y).backward(torch.ones_like(h))
    assert (h.grad == 0).all()
    assert (chain.interfaces()[0].synthetic_gradient(h, chain.y) == 0).all()


# --- completely unlocked -----------------------------------------------------------------------------------


def with_input_models(chain):
    """Warm interfaces, and input models that see x."""
    interfaces = chain.interfaces()
    for interface in interfaces:
        interface.input_model = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 5)).double()
    return interfaces


def own(parts, interfaces, k):
    """The modules that part k's loss teaches: the part, M below it, I above it."""
    below = [interfaces[k - 1].gradient_model] if k else []
    above = [interfaces[k].input_model] if k < len(interfaces) else []
    return [p for module in (parts[k], *below, *above) for p in module.parameters()]


def learnt(chain, interfaces, order, steps):
    """All parameters after some steps, each part updated when its loss is yielded."""
    parts, interfaces = copy.deepcopy((chain.parts, interfaces))
    optimizers = [torch.optim.Adam(own(parts, interfaces, k), lr=0.01) for k in range(4)]
    for _ in range(steps):
        losses = completely_unlocked(parts, interfaces, chain.x, chain.criterion, chain.y, order)
        handed_out = []
        for k, loss in losses:
            loss.backward()
            optimizers[k].step()
            optimizers[k].zero_grad()
            handed_out.append(k)
        assert handed_out == list(order or range(4))
    return [p.detach() for module in (*parts, *interfaces) for p in module.parameters()]


def test_any_order_gives_the_same_bit_for_bit(chain, equal):
    interfaces = with_input_models(chain)
    expected = learnt(chain, interfaces, None, 6)
    before = [p for module in (*chain.parts, *interfaces) for p in module.parameters()]
    assert not any(torch.equal(a, b) for a, b in zip(expected, before, strict=True))
    for order in itertools.permutations(range(4)):
        assert equal(learnt(chain, interfaces, order, 6), expected)


@pytest.mark.parametrize("k", range(4))
def test_a_part_needs_nothing_of_the_others_in_the_same_step(chain, equal, k):
    """Whatever the others' outputs are; its loss reaches the part, M below it and I above it, nothing else."""
    interfaces = with_input_models(chain)
    for _ in range(4):  # units are known
        for _j, loss in completely_unlocked(chain.parts, interfaces, chain.x, chain.criterion, chain.y):
            loss.backward()
    found = []
    for broken in (False, True):
        modules, twins = copy.deepcopy((chain.parts, interfaces))
        for module in (*modules, *twins):
            module.zero_grad()
        parts = [m if j == k or not broken else lambda h, m=m: m(h) * torch.nan for j, m in enumerate(modules)]
        losses = dict(completely_unlocked(parts, twins, chain.x, chain.criterion, chain.y))
        losses[k].backward()
        found.append([p.grad for p in own(modules, twins, k)])
        reached = {id(p) for module in (*modules, *twins) for p in module.parameters() if p.grad is not None}
        assert reached == {id(p) for p in own(modules, twins, k)}
    assert equal(*found)
    assert all((g != 0).any() for g in found[0])


def test_the_losses_are_those_on_synthetic_inputs(chain):
    interfaces = with_input_models(chain)
    losses = dict(completely_unlocked(chain.parts, interfaces, chain.x, chain.criterion, chain.y))
    out = chain.parts[3](interfaces[2].synthetic_input(chain.x))
    assert torch.equal(losses[3], chain.criterion(out))
    h = chain.parts[1](interfaces[0].synthetic_input(chain.x))
    missed = (interfaces[1].synthetic_input(chain.x) - h).square().sum() / len(h)
    assert torch.allclose(losses[1], missed)  # and ⟨δ̂, h⟩, which is zero before a gradient came


def test_input_models_learn_their_messages(chain):
    interfaces = with_input_models(chain)
    optimizers = [torch.optim.Adam(own(chain.parts, interfaces, k), lr=0.01) for k in range(4)]

    def missed():
        h = [chain.x, *(interface.synthetic_input(chain.x) for interface in interfaces)]
        return [i.fit(chain.parts[k](h[k]), source=chain.x).item() for k, i in enumerate(interfaces)]

    before = missed()
    for _ in range(150):
        for k, loss in completely_unlocked(chain.parts, interfaces, chain.x, chain.criterion, chain.y):
            loss.backward()
            optimizers[k].step()
            optimizers[k].zero_grad()
    assert all(after < 0.1 * first for after, first in zip(missed(), before, strict=True))


@pytest.mark.parametrize("order", [[], [0, 1, 2], [0, 1, 2, 2], [0, 1, 2, 4], [3, 2, 1, 0, 0]])
def test_an_invalid_order_is_refused(chain, order):
    with pytest.raises(ValueError, match="must name each of the 4 parts once"):
        next(completely_unlocked(chain.parts, with_input_models(chain), chain.x, chain.criterion, order=order))


def test_missing_input_models_and_interfaces_are_refused(chain):
    interfaces = with_input_models(chain)
    with pytest.raises(ValueError, match="4 parts need 3"):
        next(completely_unlocked(chain.parts, interfaces[:2], chain.x, chain.criterion, chain.y))
    interfaces[1].input_model = None
    with pytest.raises(ValueError, match="no input model"):
        next(completely_unlocked(chain.parts, interfaces, chain.x, chain.criterion, chain.y))


@pytest.mark.parametrize("first", ["no parameters", "frozen"])
@pytest.mark.parametrize("complete", [False, True])
def test_a_first_part_that_has_nothing_to_learn(first, complete):
    parts = [nn.Flatten() if first == "no parameters" else nn.Linear(4, 4).requires_grad_(False)]
    parts += [nn.Linear(4, 4), nn.Linear(4, 3)]
    interfaces = [Interface(Linear(4), input_model=nn.Linear(4, 4)) for _ in range(2)]
    x, y = torch.randn(8, 4), torch.arange(8) % 3
    run = completely_unlocked if complete else unlocked
    for k, loss in run(parts, interfaces, x, lambda out: nn.functional.cross_entropy(out, y)):
        loss.backward()
        assert (k == 0) <= all(p.grad is None for p in parts[0].parameters())
    assert all(p.grad is not None for part in parts[1:] for p in part.parameters())
    assert all(p.grad is not None for i in interfaces for p in i.gradient_model.parameters())
