"""A chain that learns part by part is the fused chain, and Fig. 2."""

import copy

import pytest
import torch

from synthgrad import Interface, chained, unlocked
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
        chain.criterion(chained(chain.parts, interfaces, chain.x, chain.y)).backward()
        together.step()
    assert equal([p for m in parts for p in m.parameters()], chain.parameters())
    assert equal([p for i in twins for p in i.parameters()], [p for i in interfaces for p in i.parameters()])


def test_hands_out_each_part_once_with_the_task_loss_last(chain):
    steps = list(unlocked(chain.parts, chain.interfaces(), chain.x, chain.criterion, chain.y))
    assert [k for k, _ in steps] == [0, 1, 2, 3]
    assert torch.equal(steps[-1][1], chain.criterion(chain.run(chain.x)))


def test_a_part_runs_only_when_asked_for(chain):
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
    assert torch.equal(chained([chain.run], [], chain.x), chain.run(chain.x))


@pytest.mark.parametrize("count", [2, 4])
def test_wrong_number_of_interfaces(chain, count):
    interfaces = [Interface(Linear(5)) for _ in range(count)]
    with pytest.raises(ValueError, match=f"4 parts want 3 interfaces between them, not {count}"):
        next(unlocked(chain.parts, interfaces, chain.x, chain.criterion))
    with pytest.raises(ValueError, match="4 parts want 3"):
        chained(chain.parts, [Interface(lambda h, c: h) for _ in range(count)], chain.x)
