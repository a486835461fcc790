"""``compare`` on known vectors; ``probe`` changes no state."""

import math

import pytest
import torch
from torch import nn

from synthgrad import Interface, compare, fused, probe
from synthgrad.models import MLP, Linear


@pytest.mark.parametrize(
    ("synthetic", "true", "cosine", "signs", "ratio", "error"),
    [
        ([3.0, 4.0], [3.0, 4.0], 1.0, 1.0, 1.0, 0.0),
        ([-6.0, -8.0], [3.0, 4.0], -1.0, 0.0, 2.0, 3.0),
        ([4.0, -3.0], [3.0, 4.0], 0.0, 0.5, 1.0, math.sqrt(2)),
        ([3.0, 0.0], [3.0, 4.0], 0.6, 0.5, 0.6, 0.8),
        ([5.0, 3.0, 4.0], [0.0, 3.0, 4.0], 1 / math.sqrt(2), 1.0, math.sqrt(2), 1.0),  # δ = 0: no sign to agree on
        ([0.0, 0.0], [3.0, 4.0], 0.0, 0.0, 0.0, 1.0),
        ([1.0, 1.0], [0.0, 0.0], math.nan, math.nan, math.inf, math.inf),
        ([0.0, 0.0], [0.0, 0.0], 0.0, math.nan, math.nan, math.nan),
        ([], [], 0.0, math.nan, math.nan, math.nan),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_compare(synthetic, true, cosine, signs, ratio, error, dtype):
    q = compare(torch.tensor([synthetic], dtype=dtype), torch.tensor([true], dtype=dtype))
    assert [q.cosine, q.sign_agreement, q.norm_ratio, q.relative_error] == pytest.approx(
        [cosine, signs, ratio, error], nan_ok=True
    )


@pytest.mark.usefixtures("unchecked")
def test_compare_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"\(2, 3\) and δ \(3, 2\)"):
        compare(torch.zeros(2, 3), torch.zeros(3, 2))


def named(interfaces):
    return {str(k): interface for k, interface in enumerate(interfaces)}


def test_an_exact_model_is_perfect(chain):
    interfaces = chain.exact_interfaces(scale=0.1)
    result = probe(named(interfaces), lambda: chain.criterion(fused(chain.parts, interfaces, chain.x)))
    assert len(result) == 3
    for q in result.values():
        assert abs(q.cosine - 1) < 1e-12
        assert q.sign_agreement == 1
        assert q.relative_error < 1e-10


def test_an_untrained_model_has_no_information(chain):
    interfaces = [Interface(Linear(5)).double() for _ in range(3)]
    result = probe(named(interfaces), lambda: chain.criterion(fused(chain.parts, interfaces, chain.x)))
    assert [(q.cosine, q.norm_ratio, q.relative_error) for q in result.values()] == [(0, 0, 1)] * 3


@pytest.mark.parametrize("fails", [False, True])
def test_probe_leaves_no_trace(fails):
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout())
    interface, top, x = Interface(MLP(4, batch_norm=True)), nn.Linear(4, 1), torch.randn(8, 4)
    top(interface(net(x))).sum().backward()
    modules = (net, top, interface)
    before = [{key: value.clone() for key, value in module.state_dict().items()} for module in modules]
    gradients = [p.grad.clone() for module in modules for p in module.parameters()]
    random = torch.get_rng_state()

    def loss():
        value = top(interface(net(x))).sum()
        net.eval()
        if fails:
            raise FloatingPointError
        return value

    if fails:
        with pytest.raises(FloatingPointError):
            probe({"edge": interface}, loss, net, top)
    else:
        assert list(probe({"edge": interface}, loss, net, top)) == ["edge"]
    assert torch.equal(torch.get_rng_state(), random)
    for module, state in zip(modules, before, strict=True):
        assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())
        assert all(each.training for each in module.modules())
    now = [p.grad for module in modules for p in module.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(now, gradients, strict=True))
    interface.zero_grad()
    top(interface(net(x))).sum().backward()  # untapped: M learns again
    assert any((p.grad != 0).any() for p in interface.parameters())


def test_unused_interfaces_are_left_out(chain):
    used, unused, dead, outside = (Interface(Linear(5)).double() for _ in range(4))

    def loss():
        h = chain.parts[0](chain.x)
        dead(h)
        outside(chain.x)  # data: nothing learns from its gradient
        return used(h).sum()

    result = probe({"used": used, "unused": unused, "dead": dead, "outside": outside}, loss)
    assert list(result) == ["used"]


def test_the_last_of_several_calls_counts(chain):
    interface = Interface(lambda h, context: torch.full_like(h, context), unit=1.0)

    def loss():
        h = interface(chain.parts[0](chain.x), 1.0)
        return interface(chain.parts[1](h), 2.0).sum() * 2

    assert probe({"edge": interface}, loss)["edge"].relative_error == 0


def test_a_skip_connection_is_not_the_messages(chain):
    """δ is the gradient over the interface, without that of h's other uses."""
    interface = Interface(lambda h, context: torch.ones_like(h), unit=1.0)

    def loss():
        h = chain.parts[0](chain.x)
        return h.square().sum() + interface(h).sum()

    assert probe({"edge": interface}, loss)["edge"].relative_error == 0


def test_one_interface_under_two_names_is_compared_under_both():
    parts, interface = [nn.Linear(4, 4), nn.Linear(4, 2)], Interface(Linear(4))
    found = probe({"a": interface, "b": interface}, lambda: fused(parts, [interface], torch.randn(8, 4)).sum())
    assert list(found) == ["a", "b"]
    assert vars(found["a"]) == vars(found["b"])
