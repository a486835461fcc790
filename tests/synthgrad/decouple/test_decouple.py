"""``decouple`` places interfaces by name and leaves the network as it is."""

import ast
import copy
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn

from synthgrad import Cut, Interface, decouple, fused
from synthgrad.models import Linear


class Net(nn.Module):
    """Has names with dots, with a slash, and one that ModuleDict uses itself."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 5), nn.Sequential(nn.Linear(5, 5), nn.Tanh()))
        self.values = nn.Linear(5, 5)
        self.top = nn.Linear(5, 3)

    def forward(self, x):
        return self.top(self.values(self.layers(x)))


NAMES = ["layers.0", "layers.1.0", "layers", "values"]


@pytest.fixture
def net():
    return Net()


@pytest.fixture
def x():
    return torch.randn(8, 5)


def grads(module):
    return [p.grad for p in module.parameters()]


def warm(cut):
    for parameter in cut.parameters():
        nn.init.normal_(parameter, std=0.3)
    return cut


def true_grads(net, x):
    return list(torch.autograd.grad(net(x).sum(), list(net.parameters())))


def test_lam_1_is_backprop_bit_for_bit(net, x, equal):
    expected = true_grads(net, x)
    warm(decouple(net, {name: Interface(Linear(5), lam=1.0) for name in NAMES}))
    net(x).sum().backward()
    assert equal(grads(net), expected)


@pytest.mark.parametrize("lam", [0.0, 0.5])
def test_exact_model_is_backprop(chain, equal, lam):
    net, expected = nn.Sequential(*chain.parts), chain.backprop()
    # The models run the parts above: without hooks, on copies.
    interfaces = copy.deepcopy(chain).exact_interfaces(lam=lam)
    decouple(net, {str(k): interface for k, interface in enumerate(interfaces)})
    chain.criterion(net(chain.x)).backward()
    assert equal(chain.take_grads(), expected, 1e-10)


def test_is_the_chain_of_its_parts(chain, equal):
    net, interfaces = nn.Sequential(*chain.parts), chain.interfaces(lam=0.3)
    chain.criterion(fused(chain.parts, copy.deepcopy(interfaces), chain.x, chain.y)).backward()
    expected = chain.take_grads()
    cut = decouple(net, {str(k): interface for k, interface in enumerate(interfaces)})
    with cut.context(chain.y):
        chain.criterion(net(chain.x)).backward()
    assert equal(chain.take_grads(), expected)


def test_the_network_keeps_its_class_and_state(net, x, equal):
    before, names, out = net.state_dict(), [name for name, _ in net.named_modules()], net(x)
    cut = decouple(net, {name: Linear(5) for name in NAMES})
    assert type(net) is Net
    assert isinstance(cut, Cut)
    assert list(net.state_dict()) == list(before)
    assert [name for name, _ in net.named_modules()] == names
    assert torch.equal(net(x), out)
    assert not set(cut.parameters()) & set(net.parameters())


def test_remove_restores(net, x, equal):
    hooks = {name: dict(module._forward_hooks) for name, module in net.named_modules()}
    expected = true_grads(net, x)
    cut = warm(decouple(net, dict.fromkeys(NAMES, Linear(5))))
    assert not equal(true_grads(net, x), expected)
    cut.remove()
    cut.remove()
    assert {name: dict(module._forward_hooks) for name, module in net.named_modules()} == hooks
    assert equal(true_grads(net, x), expected)


def test_eval_of_the_network_is_the_identity(net, x, equal):
    expected = true_grads(net, x)
    cut = warm(decouple(net, {name: Linear(5) for name in NAMES}))
    net.eval()
    net(x).sum().backward()
    assert equal(grads(net), expected)
    assert all(p.grad is None for p in cut.parameters())
    net.train()
    assert not equal(true_grads(net, x), expected)


def test_models_are_wrapped_and_found_by_name(net):
    model, interface = Linear(5), Interface(Linear(5), lam=0.5)
    cut = decouple(net, {"layers.1.0": model, "values": interface})
    assert cut["layers.1.0"].gradient_model is model
    assert cut["layers.1.0"].lam == 0
    assert cut["values"] is interface


@pytest.mark.parametrize(("name", "near"), [("layer.0", "layers.0"), ("vales", "values"), ("", "layers")])
def test_unknown_names_name_the_nearest(net, name, near):
    with pytest.raises(KeyError, match=f"{name!r} in Net; .*{near}"):
        decouple(net, {"top": Linear(3), name: Linear(5)})
    assert not net.top._forward_hooks


def test_tuples_are_refused_with_advice():
    net = nn.Sequential(nn.LSTM(5, 4))
    decouple(net, {"0": Linear(4)})
    with pytest.raises(TypeError, match=r"'0' \(LSTM\) returns tuple.*: cut where one is returned, or call the"):
        net(torch.randn(2, 3, 5))


def test_context_is_undone(net, x):
    seen = []
    cut = decouple(net, {"values": lambda h, context: seen.append(context) or torch.zeros_like(h)})

    def fail():
        with cut.context("inner"):
            net(x)
            raise RuntimeError

    with cut.context("outer"):
        with pytest.raises(RuntimeError):
            fail()
        net(x)
    net(x)
    assert seen == ["inner", "outer", None]


def digest(cut):
    return {name: [round(float(v.double().sum()), 6) for v in cut[name].state_dict().values()] for name in NAMES}


ELSEWHERE = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from tests.synthgrad.decouple.test_decouple import NAMES, Linear, Net, decouple, digest
cut = decouple(Net(), {name: Linear(5) for name in reversed(NAMES)})
cut.load_state_dict(torch.load(sys.argv[2], weights_only=True))
print(digest(cut))
"""


def test_state_loads_in_another_process(net, x, tmp_path, request):
    cut = warm(decouple(net, {name: Linear(5) for name in NAMES}))
    net(x).sum().backward()  # moves the units
    torch.save(cut.state_dict(), tmp_path / "cut.pt")
    run = [sys.executable, "-c", ELSEWHERE, str(request.config.rootpath), str(tmp_path / "cut.pt")]
    assert ast.literal_eval(subprocess.check_output(run, text=True)) == digest(cut)


def test_quality_by_name(chain):
    net = nn.Sequential(*chain.parts)
    exact = copy.deepcopy(chain).exact_interfaces()
    cut = decouple(net, {"0": exact[0], "2.1": exact[2]})
    quality = cut.quality(lambda: chain.criterion(net(chain.x)))
    assert list(quality) == ["0", "2.1"]
    assert all(abs(each.cosine - 1) < 1e-12 for each in quality.values())
    net.eval()
    assert cut.quality(lambda: chain.criterion(net(chain.x))) == {}


def test_a_cut_net_can_be_copied_and_the_copy_teaches_its_own_models():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    cut = decouple(net, {"1": Linear(4)})
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        other(torch.randn(5, 3)).sum().backward()
        assert all(p.grad is None for p in cut.parameters())
        assert all(torch.equal(a, b) for a, b in zip(net.parameters(), other.parameters(), strict=True))


def test_a_module_kept_in_eval_is_cut_if_the_net_trains():
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    cut = decouple(net, {"1": Linear(4)})
    net.train()
    net[1].eval()
    net(torch.randn(8, 4)).sum().backward()
    assert all(p.grad is not None for p in cut.parameters())
    assert (net[0].weight.grad == 0).all()  # M has not learnt yet
    net.eval()
    net.zero_grad()
    net(torch.randn(8, 4)).sum().backward()
    assert net[0].weight.grad.any()


def test_a_module_is_cut_once():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    cut = decouple(net, {"0": Linear(4)})
    with pytest.raises(ValueError, match=r"'0' is cut already; remove\(\)"):
        decouple(net, {"0": Linear(4)})
    cut.remove()
    decouple(net, {"0": Linear(4)})
