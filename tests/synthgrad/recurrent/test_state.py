"""A state as one message: row k belongs to example k, and unpack inverts pack."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils._pytree import tree_flatten

from synthgrad import pack, restart, unpack

F64 = torch.float64
FORMS = {
    "tensor": lambda make: make(),
    "tuple": lambda make: (make(), make()),
    "list in a tuple": lambda make: ([make(), make()], make()),
    "nested dict": lambda make: {"memory": {"fast": make(), "slow": make()}, "head": [make()]},
}


@st.composite
def states(draw):
    """A state, the dimension of its batch, its batch; each tensor of another size."""
    kind = draw(st.sampled_from(["module", "cell", "last"]))
    batch = draw(st.integers(0, 4))

    def tensor():
        units = draw(st.sampled_from([1, 2, 3, 5, 7]))
        layers = draw(st.integers(1, 3))
        shape = {"module": (layers, batch, units), "cell": (batch, units), "last": (layers, units, batch)}[kind]
        return torch.randn(shape)

    return draw(st.sampled_from(list(FORMS.values())))(tensor), 2 if kind == "last" else None, batch


def tensors(state):
    return tree_flatten(state)[0]


@given(states(), st.data())
def test_pack_and_unpack_are_inverse(drawn, data):
    state, dim, batch = drawn
    places = range(len(tensors(state)))
    only = data.draw(st.none() | st.sets(st.sampled_from(places), min_size=1))
    message = pack(state, dim, only)
    other = tree_flatten(state)[1].unflatten([torch.full_like(leaf, 9.0) for leaf in tensors(state)])
    back = unpack(message, other, dim, only)
    chosen = places if only is None else only
    assert len(message) == batch
    assert message.numel() == sum(tensors(state)[n].numel() for n in chosen)
    assert tree_flatten(back)[1] == tree_flatten(state)[1]
    for n, (leaf, found, untouched) in enumerate(zip(*map(tensors, (state, back, other)), strict=True)):
        assert torch.equal(found, leaf if n in chosen else untouched)
        assert found.is_contiguous()


@given(states())
def test_each_row_is_that_of_its_example_alone(drawn):
    state, dim, batch = drawn
    whole = pack(state, dim)
    leaves, form = tree_flatten(state)
    axis = dim if dim is not None else 1 if leaves[0].dim() == 3 else 0
    for k in range(batch):
        alone = form.unflatten([leaf.narrow(axis, k, 1) for leaf in leaves])
        assert torch.equal(pack(alone, dim), whole[k : k + 1])


@pytest.mark.parametrize("batch_first", [False, True])
def test_the_batch_of_an_lstm_is_dimension_1_whatever_its_inputs(batch_first):
    core = nn.LSTM(3, 5, num_layers=2, batch_first=batch_first)
    h, c = core(torch.randn(4, 4, 3))[1]
    expected = torch.stack([torch.cat([h[:, k].flatten(), c[:, k].flatten()]) for k in range(4)])
    assert torch.equal(pack((h, c)), expected)


def test_the_batch_of_a_cell_is_dimension_0():
    h, c = nn.LSTMCell(3, 5)(torch.randn(4, 3))
    assert torch.equal(pack((h, c)), torch.cat([h, c], dim=1))
    assert torch.equal(pack((h, c), only=(1,)), c)


def test_gradients_flow_through_pack_and_unpack():
    state = {"h": torch.randn(2, 3, 4, dtype=F64, requires_grad=True)}
    assert torch.autograd.gradcheck(lambda h: pack({"h": h}).sin(), state["h"])
    message = torch.randn(3, 8, dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda m: unpack(m, state)["h"].sin(), message)


def test_tensors_outside_the_message_come_back_detached():
    h, c = (torch.randn(1, 3, 4, requires_grad=True) for _ in range(2))
    message = pack((h, c), only=(0,))
    back_h, back_c = unpack(message, (h, c), only=(0,))
    assert torch.equal(back_c, c)
    assert not back_c.requires_grad
    (back_h * back_c).sum().backward()
    assert torch.equal(h.grad, c.detach())
    assert c.grad is None


@pytest.mark.parametrize("state", [(), None, 3.0, "h", (torch.zeros(2, 3), None), {"h": torch.zeros(2, 3), "n": 1}])
def test_a_state_must_consist_of_tensors(state):
    for call in (lambda: pack(state), lambda: unpack(torch.zeros(2, 3), state)):
        with pytest.raises(TypeError, match=f"a nest of tensors, not {type(state).__name__}"):
            call()


def test_different_batches_are_refused():
    with pytest.raises(ValueError, match=r"shapes \(1, 2, 3\), \(1, 4, 3\) and no common batch; pass batch_dim="):
        pack((torch.zeros(1, 2, 3), torch.zeros(1, 4, 3)))
    assert pack((torch.zeros(2, 1, 3), torch.zeros(2, 4, 3)), batch_dim=0).shape == (2, 15)


def test_a_message_of_another_size_is_refused():
    state = (torch.zeros(1, 2, 3), torch.zeros(1, 2, 4))
    with pytest.raises(ValueError, match="a message of 6 numbers per example does not fit a state of 7"):
        unpack(torch.zeros(2, 6), state)
    with pytest.raises(ValueError, match="a message of 7 numbers per example does not fit a state of 4"):
        unpack(torch.zeros(2, 7), state, only=(1,))


@given(states(), st.lists(st.booleans(), min_size=4, max_size=4), st.booleans(), st.sampled_from([torch.bool, F64]))
def test_restart_resets_the_rows_that_are_done_and_no_others(drawn, flags, zeros, dtype):
    state, dim, batch = drawn
    leaves, form = tree_flatten(state)
    done = torch.tensor(flags[:batch], dtype=dtype)
    first = [torch.zeros_like(leaf) if zeros else torch.randn_like(leaf) for leaf in leaves]
    found = restart(state, done, None if zeros else form.unflatten(first), dim)
    assert tree_flatten(found)[1] == form
    rows, old, new = (pack(s, dim) for s in (found, state, form.unflatten(first)))
    for k in range(batch):
        assert torch.equal(rows[k], new[k] if flags[k] else old[k])


def test_no_gradient_goes_back_beyond_a_restart():
    h = torch.randn(2, 3, 4, requires_grad=True)
    first = torch.zeros(2, 3, 4, requires_grad=True)
    (restart(h, torch.tensor([False, True, False]), first) * 2).sum().backward()
    done = torch.tensor([0.0, 1.0, 0.0])[None, :, None]
    assert torch.equal(h.grad, (2 - 2 * done).expand_as(h))
    assert torch.equal(first.grad, (2 * done).expand_as(h))


def test_a_learned_first_state_of_one_row_is_broadcast():
    first = torch.zeros(2, 1, 4, requires_grad=True)
    restart(torch.randn(2, 3, 4), torch.tensor([True, False, True]), first).sum().backward()
    assert torch.equal(first.grad, torch.full((2, 1, 4), 2.0))


def test_a_restart_removes_values_that_are_not_finite():
    h = torch.tensor([[1.0], [float("nan")]], requires_grad=True)
    found = restart(h, torch.tensor([False, True]))
    found.square().sum().backward()
    assert found.tolist() == [[1.0], [0.0]]
    assert h.grad.tolist() == [[2.0], [0.0]]
