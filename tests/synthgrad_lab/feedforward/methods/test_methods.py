"""How the layers learn, method by method, on tiny nets and random images."""

import copy
import itertools
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from synthgrad import checkpoint
from synthgrad_lab.feedforward.methods import METHOD_CLASSES
from synthgrad_lab.feedforward.networks import IMAGES
from synthgrad_lab.feedforward.recipes import RECIPES, paper_preset
from synthgrad_lab.feedforward.settings import INTERFACED, METHODS
from synthgrad_lab.feedforward.trainer import Trainer
from synthgrad_lab.running.settings import vary

F64 = torch.float64


def small(method, recipe="mnist-fcn", **changes):
    tiny = {"width": 4, "batch": 8, "model.hidden": 4, "model.input_hidden": 4, "epochs": None, "steps": 20}
    return vary(RECIPES[recipe](method), {**tiny, "run.precision": "fp32", **changes})


def batch(s):
    channels, side = IMAGES[s.data]
    return torch.rand(s.batch, channels, side, side), torch.randint(10, (s.batch,))


def weights(trainer):
    return [p.detach().clone() for part in trainer.parts for p in part.parameters()]


def own_grads(module):
    return [p.grad.clone() for p in module.parameters() if p.grad is not None]


def trained(s, steps=6):
    """A trainer after some steps, so that every interface has had a gradient."""
    trainer = Trainer(s)
    for step in range(steps):
        trainer.schedule(step)
        trainer.step(*batch(s))
    return trainer


def assert_each_has_an_optimizer(trainer):
    """Each trained parameter belongs to the optimizer of exactly one layer."""
    learns = [p for module in (*trainer.parts, trainer.method) for p in module.parameters() if p.requires_grad]
    moved = [p for o in trainer.optimizers for group in o.param_groups for p in group["params"]]
    assert sorted(map(id, learns)) == sorted(map(id, moved))


# --- every method ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("method", METHODS)
def test_steps_are_finite_and_update_the_methods_layers(method, recipe):
    trainer = trained(small(method, recipe, **{"optimizer.lr": 0.01}))
    before = copy.deepcopy(trainer.parts)
    done = list(trainer.updates)
    for step in range(6, 9):
        trainer.schedule(step)
        task = trainer.step(*batch(trainer.settings))
        assert task.isfinite()
    assert all(p.isfinite().all() for module in (*trainer.parts, trainer.method) for p in module.parameters())
    learns = [method != "no-bprop" or k == 3 for k in range(4)]
    assert [now - then for now, then in zip(trainer.updates, done, strict=True)] == [3 * each for each in learns]
    for a, b, moves in zip(before, trainer.parts, learns, strict=True):
        moved = [not torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True)]
        assert any(moved) == moves
    assert_each_has_an_optimizer(trainer)


@pytest.mark.parametrize("method", ["stale", "feedback-alignment", "critic"])
def test_a_checkpoint_holds_all_that_a_later_step_depends_on(method, tmp_path):
    s = small(method, **{"model.target_every": 2 if method == "critic" else 0})
    trainer, other = trained(s), Trainer(replace(s, seed=1))
    checkpoint.save(tmp_path, trainer.state_dict())
    other.load_state_dict(checkpoint.load(tmp_path))
    for _ in range(5):
        x, y = batch(s)
        for each in (trainer, other):
            each.step(x, y)
    assert other.updates == trainer.updates
    assert all(map(torch.equal, weights(trainer), weights(other)))


@pytest.mark.parametrize("method", ["dni", "cdni", "critic"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_papers_own_models_learn(recipe, method):
    s = vary(paper_preset(RECIPES[recipe](method)), {"width": 4, "batch": 8, "model.hidden": 4})
    trainer = trained(s, steps=3)
    assert trainer.updates == [3] * 4
    assert all(p.isfinite().all() for module in (*trainer.parts, trainer.method) for p in module.parameters())


@pytest.mark.parametrize("unlock", ["update", "fused", "complete"])
@pytest.mark.parametrize("recipe", ["mnist-fcn", "mnist-cnn"])
@pytest.mark.parametrize("changes", [{}, {"model.target_every": 2}, {"model.anchor": 0.0}], ids=str)
def test_a_critic_works_wherever_a_regression_does(unlock, recipe, changes):
    s = small("critic", recipe, unlock=unlock, **changes)
    trainer = trained(s)
    assert trainer.updates == [6] * 4
    assert_each_has_an_optimizer(trainer)
    quality = trainer.quality(*batch(s))
    assert set(quality) == {"h1", "h2", "h3"}
    assert all(0 < q.norm_ratio < float("inf") for q in quality.values())
    assert (trainer.method.interfaces[0].input_model is not None) == (unlock == "complete")


def test_measuring_a_critic_leaves_no_trace():
    trainer = trained(small("critic", **{"model.depth": 1}))
    x, y = batch(trainer.settings)
    before, random = copy.deepcopy(trainer.state_dict()), torch.get_rng_state()
    trainer.quality(x, y)
    after = trainer.state_dict()
    for a, b in zip([*before["parts"], before["method"]], [*after["parts"], after["method"]], strict=True):
        assert all(torch.equal(a[k], b[k]) for k in a)
    assert torch.equal(random, torch.get_rng_state())


# --- the baselines -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_stale_equals_its_slow_twin(depth):
    """Layer k of n gets the gradient of the batch n - 1 - k steps ago; each layer above has computed its share of it
    with the weights of the step in which the gradient reached that layer."""
    layers = [nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for _ in range(depth - 1)]
    parts = [part.double() for part in (*layers, nn.Linear(6, 10))]
    twins = copy.deepcopy(parts)
    method = METHOD_CLASSES["stale"](small("stale"), parts)
    inputs, ys, down = (
        [],
        [],
        {},
    )  # by step; down[t, k]: the gradient at the input of layer k for the batch of step t
    for t in range(8):
        x, y = torch.randn(4, 6, dtype=F64), torch.randint(10, (4,))
        for (k,), loss in method.losses(x, y):
            loss.backward()
            with torch.no_grad():
                for p in parts[k].parameters():
                    p -= 0.1 * p.grad
                    p.grad = None
        ys.append(y)
        inputs.append([x])
        for twin in twins[:-1]:
            inputs[t].append(twin(inputs[t][-1]).detach())
        for k, twin in enumerate(twins):
            then = t - (depth - 1 - k)
            if then < 0:
                continue
            leaf = inputs[then][k].clone().requires_grad_()
            out = twin(leaf)
            if k == depth - 1:
                out, above = F.cross_entropy(out.float(), ys[then]), None
            else:
                above = down[then, k + 1]
            down[then, k], *grads = torch.autograd.grad(out, [leaf, *twin.parameters()], above)
            with torch.no_grad():
                for p, g in zip(twin.parameters(), grads, strict=True):
                    p -= 0.1 * g
        for part, twin in zip(parts, twins, strict=True):
            torch.testing.assert_close(part.state_dict(), twin.state_dict(), rtol=1e-12, atol=1e-12)


def test_stale_with_constant_batch_and_weights_is_bprop():
    parts = [nn.Sequential(nn.Linear(6, 6), nn.Tanh()).double() for _ in range(3)]
    method = METHOD_CLASSES["stale"](small("stale"), parts)
    x, y = torch.randn(4, 6, dtype=F64), torch.randint(6, (4,))
    for _ in range(3):
        for module in parts:
            module.zero_grad()
        for _layers, loss in method.losses(x, y):
            loss.backward()
    whole = nn.Sequential(*copy.deepcopy(parts))
    whole.zero_grad()
    F.cross_entropy(whole(x).float(), y).backward()
    torch.testing.assert_close([p.grad for m in parts for p in m.parameters()], own_grads(whole))


@pytest.mark.parametrize("recipe", ["mnist-fcn", "mnist-cnn"])
def test_feedback_alignment_projects_the_outputs_error(recipe):
    trainer = Trainer(small("feedback-alignment", recipe))
    for part in trainer.parts:
        part.double()
    x, y = batch(trainer.settings)
    x, order = x.double(), []
    for (k,), loss in trainer.method.losses(x, y):
        loss.backward()
        order.append(k)
    assert order == [3, 0, 1, 2]
    h = x
    messages = [h := part(h.detach()) for part in trainer.parts]
    (error,) = torch.autograd.grad(F.cross_entropy(messages[-1], y), messages[-1])  # (p - y) / batch
    for k, message in enumerate(messages[:-1]):
        fed_back = trainer.method.get_buffer(f"back{k}").double()
        delta = (error @ fed_back.flatten(1)).view_as(message)
        expected = torch.autograd.grad(message, list(trainer.parts[k].parameters()), delta)
        torch.testing.assert_close(own_grads(trainer.parts[k]), list(expected), rtol=1e-4, atol=1e-7)


def test_feedback_weights_never_move():
    s = small("feedback-alignment")
    before, after = (dict(trained(s, steps).method.named_buffers()) for steps in (0, 6))
    assert len(before) == 3
    assert all(torch.equal(before[k], after[k]) for k in before)


@pytest.mark.parametrize("recipe", ["mnist-cnn", "cifar-cnn"])
def test_a_local_loss_of_a_convolutional_layer_stays_local(recipe):
    trainer = Trainer(small("local-loss", recipe))
    for k, (layers, loss) in enumerate(trainer.losses(*batch(trainer.settings))):
        assert list(layers) == [k]
        loss.backward()
        taught = {id(p) for p in (*trainer.parts[k].parameters(), *trainer.method.extra_parameters(k))}
        modules = (*trainer.parts, trainer.method)
        assert {id(p) for m in modules for p in m.parameters() if p.grad is not None} == taught
        for module in modules:
            module.zero_grad()


# --- interfaces --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", INTERFACED)
def test_dni_never_sees_a_label_and_the_others_do(method):
    trainer = trained(small(method))
    x, y = batch(trainer.settings)
    found = []
    for labels in (y, (y + 1) % 10):
        twin = copy.deepcopy(trainer)
        for _layers, loss in itertools.islice(twin.losses(x, labels), 3):  # all below the top
            loss.backward()
        found.append([g for part in twin.parts[:-1] for g in own_grads(part)])
    assert any((g != 0).any() for g in found[0])
    same = all(map(torch.equal, *found))
    assert same == (method == "dni")


@pytest.mark.parametrize(
    ("lam", "lam_end", "middle", "end"),
    [
        ((0.5, 0.2, 0.0), None, (0.5, 0.2, 0.0), (0.5, 0.2, 0.0)),
        ((0.5, 0.2, 0.0), (1.0,), (0.75, 0.6, 0.5), (1.0, 1.0, 1.0)),
        ((1.0,), (0.0, 0.5, 1.0), (0.5, 0.75, 1.0), (0.0, 0.5, 1.0)),
    ],
)
def test_lam_moves_in_a_straight_line_interface_by_interface(lam, lam_end, middle, end):
    trainer = Trainer(small("cdni", unlock="fused", **{"mixing.lam": lam, "mixing.lam_end": lam_end}))
    lams = []
    for step in (0, 10, 20):
        trainer.schedule(step)
        lams.append([interface.lam for interface in trainer.interfaces])
    assert lams[0] == list(lam if len(lam) > 1 else lam * 3)
    assert lams[1:] == [pytest.approx(middle), pytest.approx(end)]


@pytest.mark.parametrize("method", INTERFACED)
@pytest.mark.parametrize("unlock", ["update", "fused"])
def test_warming_up_is_bprop_while_the_models_learn(method, unlock):
    s = small(method, unlock=unlock, **{"mixing.warm_up": 5})
    warm, plain = Trainer(s), Trainer(replace(s, method="bprop", unlock="update"))
    models = copy.deepcopy(warm.method.state_dict())
    for step in range(8):
        x, y = batch(s)
        for trainer in (warm, plain):
            trainer.schedule(step)
            trainer.step(x, y)
        assert all(map(torch.equal, weights(warm), weights(plain))) == (step < 5)
    assert warm.updates == [8] * 4
    assert all(interface.lam == 0 for interface in warm.interfaces)
    learnt = [k for k, v in warm.method.named_parameters() if not torch.equal(v, models[k])]
    assert {name.split(".")[1] for name in learnt} == {"0", "1", "2"}


@pytest.mark.parametrize("method", ["bprop", "cdni"])
def test_a_gradient_above_the_largest_norm_is_shortened(method):
    norms = {}
    for clip in (None, 1e-2, 1e9):
        trainer = Trainer(small(method, **{"optimizer.clip": clip}))
        norms[clip] = found = []
        for part, optimizer in zip(trainer.parts, trainer.optimizers, strict=True):
            optimizer.register_step_pre_hook(
                lambda *_, part=part, found=found: found.append(
                    torch.cat([g.flatten() for g in own_grads(part)]).norm().item()
                )
            )
        torch.manual_seed(2)
        trainer.step(*batch(trainer.settings))
    assert norms[1e9] == norms[None]
    assert norms[1e-2] == pytest.approx([min(n, 1e-2) for n in norms[None]], rel=1e-3)
    assert max(norms[None]) > 1e-2
