import copy

import pytest
import torch
from torch import nn

from synthgrad_lab.feedforward.settings import METHODS
from synthgrad_lab.feedforward.trainer import Trainer


def batch(s):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(s.batch, 1, 28, 28, generator=generator), torch.randint(10, (s.batch,), generator=generator)


def weights(trainer):
    return [p.detach().clone() for part in trainer.parts for p in part.parameters()]


def assert_same_steps(a, b):
    x, y = batch(a.settings)
    for _ in range(5):
        a.step(x, y)
        b.step(x, y)
    assert all(map(torch.equal, weights(a), weights(b)))


@pytest.mark.parametrize("layers", [2, 3, 6])
@pytest.mark.parametrize("method", METHODS)
def test_each_method_updates_its_layers(tiny, method, layers):
    trainer = Trainer(tiny(method, layers=layers))
    x, y = batch(trainer.settings)
    trainer.step(x, y)  # the first synthetic gradients are zero
    before = [copy.deepcopy(part.state_dict()) for part in trainer.parts]
    for _ in range(3):  # the lowest M gets a gradient after those above it
        trainer.step(x, y)
    moved = [
        any(
            not torch.equal(a, p)
            for a, p in zip(
                [v for k, v in b.items() if k in dict(part.named_parameters())], part.parameters(), strict=True
            )
        )
        for b, part in zip(before, trainer.parts, strict=True)
    ]
    trained = [method != "no-bprop"] * (layers - 1) + [True]
    if method == "stale":  # layer k's first gradient has come down n - 1 - k steps
        assert trainer.updates == [max(0, 4 - (layers - 1 - k)) for k in range(layers)]
    else:
        assert trainer.updates == [4 * t for t in trained]
    assert moved[-2:] == trained[-2:]


@pytest.mark.parametrize("method", ["dni", "cdni"])
def test_unlocked_equals_fused(tiny, method):
    a, b = (Trainer(tiny(method, unlock=unlock)) for unlock in ("update", "fused"))
    assert_same_steps(a, b)


def test_fused_with_lam_1_equals_bprop(tiny):
    a, b = Trainer(tiny("bprop")), Trainer(tiny("cdni", unlock="fused", **{"mixing.lam": (1.0,)}))
    b.load_state_dict(
        {**a.state_dict(), "method": b.state_dict()["method"], "optimizers": b.state_dict()["optimizers"]}
    )
    assert_same_steps(a, b)


def test_bprop_equals_plain_pytorch(tiny):
    trainer = Trainer(tiny("bprop"))
    net = copy.deepcopy(nn.Sequential(*trainer.parts))
    optimizer = torch.optim.Adam(net.parameters(), lr=trainer.settings.optimizer.lr)
    x, y = batch(trainer.settings)
    for _ in range(5):
        loss = nn.functional.cross_entropy(net(x), y)
        assert torch.allclose(trainer.step(x, y), loss, atol=1e-6)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_measuring_leaves_no_trace(tiny):
    trainer = Trainer(tiny())
    x, y = batch(trainer.settings)
    trainer.step(x, y)
    before = copy.deepcopy(trainer.state_dict())
    random = torch.get_rng_state()
    trainer.quality(x, y)
    trainer.error(x, y)
    after = trainer.state_dict()
    for a, b in zip([*before["parts"], before["method"]], [*after["parts"], after["method"]], strict=True):
        assert all(torch.equal(a[k], b[k]) for k in a)
    assert torch.equal(random, torch.get_rng_state())
    assert all(part.training for part in trainer.parts)


def test_the_schedule_ends_at_zero(tiny):
    trainer = Trainer(tiny(steps=10))
    rates = []
    for step in (0, 5, 10):
        trainer.schedule(step)
        rates.append(trainer.optimizers[1].param_groups[0]["lr"] / trainer.settings.optimizer.lr)
    assert rates == pytest.approx([1, 0.5, 0])


def test_a_local_loss_stays_local(tiny):
    trainer = Trainer(tiny("local-loss"))
    x, y = batch(trainer.settings)
    for k, (layers, loss) in enumerate(trainer.losses(x, y)):
        assert list(layers) == [k]
        loss.backward()
        reached = [j for j, part in enumerate(trainer.parts) if next(part.parameters()).grad is not None]
        assert reached == [k]
        for module in (*trainer.parts, trainer.method):
            module.zero_grad()
