"""With exact gradient models, networks on different clocks learn as one graph does; messages arrive in time."""

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from synthgrad import Clocks, Interface, RecurrentInterface, Tick
from synthgrad.models import Linear

F64 = torch.float64
BATCH, WIDTH = 3, 2


class Net(nn.Module):
    """Reads its inbox and state, and sends each receiver another message; ``show`` is called with all it sends."""

    def __init__(self, *receivers):
        super().__init__()
        self.cell = nn.Linear(3 * WIDTH, WIDTH).double()
        self.say = nn.ModuleDict({to: nn.Linear(WIDTH, WIDTH).double() for to in receivers})

    def forward(self, inbox, state, data):
        x, show = data
        weighed = [(k + 1) * h for messages in inbox.values() for k, h in enumerate(messages)]
        zero = torch.zeros_like(x)
        h = self.cell(torch.cat([x, sum(weighed, zero), zero if state is None else state], dim=1)).tanh()
        sends = {to: show(say(h).sin()) for to, say in self.say.items()}
        return Tick(show(h.view_as(h)), sends, h.cos().sum() / BATCH, h.detach())


class Seen:
    """Records each tensor that is passed on and the gradient that reaches it; ``exact`` is a perfect M."""

    def __init__(self):
        self.passed, self.gradients = [], []

    def __call__(self, h):
        place = len(self.passed)
        self.passed.append(h.detach())
        self.gradients.append(torch.zeros_like(h))
        h.register_hook(lambda gradient: self.gradients.__setitem__(place, gradient))
        return h

    def exact(self, h, context):
        return self.gradients[(torch.stack(self.passed) - h).abs().amax((1, 2)).argmin()]


class Accumulate(torch.optim.SGD):
    """Updates nothing and keeps the gradients, so that they add up."""

    def step(self, closure=None):
        pass

    def zero_grad(self, set_to_none=True):
        pass


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1)


def adam(parameters):
    return torch.optim.Adam(parameters, lr=0.01)


def joined(nets, times, edge=lambda: None, future=lambda: None, optimizer: Callable = Accumulate) -> Any:
    """Joins nets on their clocks, with ``edge`` for each connection and ``future`` for each net's own state."""
    clocks, edges = Clocks(), {(a, b): edge() for a, net in nets.items() for b in net.say}
    for name, net in nets.items():
        own, incoming = future(), [each for (_, b), each in edges.items() if b == name]
        learns = nn.ModuleList([net, *(each for each in (own, *incoming) if each)])
        clocks.add(name, net, *times[name], optimizer=optimizer(learns.parameters()), recurrent=own)
    for names, interface in edges.items():
        clocks.connect(*names, interface)
    return clocks


def fixed(answer):
    return lambda: Interface(answer, unit=1.0)


def learnt():
    return Interface(Linear(WIDTH).double()).double()


def inputs(steps):
    torch.manual_seed(1)
    return torch.randn(steps, BATCH, WIDTH, dtype=F64)


def run(stream, x, show=lambda h: h):
    return [stream.step((each, show)) for each in x]


def parameters(clocks):
    return [p.detach().clone() for p in clocks.networks.parameters()]


def optimizers_of(clocks):
    return [member.optimizer for member in clocks.members.values()]


def gradients(clocks):
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in clocks.networks.parameters()]


# --- exact gradient models ----------------------------------------------------------------------------------


@pytest.mark.parametrize("T", [1, 2, 5])
@pytest.mark.parametrize("cycle", [False, True], ids=["a to b", "cycle"])
@pytest.mark.parametrize("optimizer", [sgd, adam])
def test_with_exact_models_the_parameters_move_as_end_to_end(equal, T, cycle, optimizer):
    found, seen = [], Seen()
    for edge in (lambda: None, fixed(seen.exact), fixed(lambda h, context: h * 0)):
        torch.manual_seed(0)
        nets = {"a": Net("b"), "b": Net("a") if cycle else Net()}
        clocks = joined(nets, {"a": (1, 2 * T), "b": (T, 2)}, edge, optimizer=optimizer)
        run(clocks.stream(), inputs(8 * T), (lambda h: h) if found else seen)
        found.append(parameters(clocks))
    end_to_end, exact, cut = found
    assert equal(exact, end_to_end, 1e-10)
    assert not equal(cut, end_to_end, 1e-3)


@st.composite
def graphs(draw):
    """Two or three nets in any order, their clocks (every, update), and to whom they speak: maybe themselves."""
    names = draw(st.permutations("abc"))[: draw(st.integers(2, 3))]
    clocks = st.sampled_from([(every, update) for every in (1, 2, 3, 4) for update in (1, 2, 3, 4, 6, 12)])
    fitting = clocks.filter(lambda clock: 12 % (clock[0] * clock[1]) == 0)
    says = st.lists(st.sampled_from(names), unique=True)
    return {name: draw(fitting) for name in names}, {name: draw(says) for name in names}


@given(graphs())
def test_with_exact_models_any_clocks_give_the_gradients_of_one_graph(graph):
    times, says = graph
    torch.manual_seed(0)
    nets, seen = {name: Net(*says[name]) for name in times}, Seen()
    one = joined(nets, {name: (every, 12 // every) for name, (every, _) in times.items()})
    run(one.stream(12), inputs(12), seen)
    expected = [g.clone() for g in gradients(one)]
    one.zero_grad()
    many = joined(nets, times, fixed(seen.exact), lambda: RecurrentInterface(Interface(seen.exact, unit=1.0)))
    run(many.stream(12), inputs(12))
    for found, wanted in zip(gradients(many), expected, strict=True):
        assert torch.allclose(found, wanted, rtol=0, atol=1e-12)
    for name, (every, update) in times.items():  # and the targets were M's predictions
        own = many.members[name].recurrent
        assert own.numbers.count == 12 // (every * update) - 1
        assert own.numbers.count == 0 or own.r2 == pytest.approx(1)
    assert not any(each.regression_loss > 1e-12 for each in many.connections.values())


# --- order of events ----------------------------------------------------------------------------------------


class Clock(nn.Module):
    """Sends the time; its output is the count of its ticks and the times in its inbox."""

    def __init__(self, *receivers):
        super().__init__()
        self.weight, self.receivers = nn.Parameter(torch.zeros(())), receivers

    def forward(self, inbox, state, data):
        count = 1 if state is None else state + 1
        said = {to: (data + 0 * self.weight).expand(1, 1) for to in self.receivers}
        received = {sender: [int(h) for h in messages] for sender, messages in inbox.items()}
        return Tick(count, said, self.weight + sum(h.sum() for m in inbox.values() for h in m), (count, received))


@given(graphs(), st.data(), st.integers(1, 14), st.booleans())
def test_each_message_arrives_once_and_in_order_and_every_event_is_on_time(graph, data, steps, together):
    times, says = graph
    times = {name: (every, 12 // every if together else update) for name, (every, update) in times.items()}
    names, edges = list(times), [(a, b) for a in times for b in says[a]]
    kinds = {edge: data.draw(st.sampled_from(["interface", "plain", "cut"])) for edge in edges}
    clocks, found = Clocks(), {edge: Interface(Linear(1)) for edge in edges if kinds[edge] == "interface"}
    period = {name: every * update for name, (every, update) in times.items()}
    for name in names:
        learns = nn.ModuleList([Clock(*says[name]), *(each for (_, b), each in found.items() if b == name)])
        clocks.add(name, learns[0], *times[name], optimizer=sgd(learns.parameters()))
    for a, b in edges:
        interface = found.get((a, b))
        clocks.connect(a, b, interface, cut=interface is None and (kinds[a, b] == "cut" or period[a] != period[b]))
    events = []
    stream = clocks.stream(on_event=lambda *event: events.append(event))
    outs = [stream.step(torch.tensor(float(t))) for t in range(1, steps + 1)]

    received = {(name, t): {} for name in names for t in range(1, steps + 5)}  # by sender, the times of sending
    for a, b in edges:
        for t in range(times[a][0], steps + 1, times[a][0]):
            first = t if names.index(a) < names.index(b) else t + 1
            received[b, first + -first % times[b][0]].setdefault(a, []).append(t)
    expected = []
    for t in range(1, steps + 1):
        now = [name for name in names if t % times[name][0] == 0]
        assert list(outs[t - 1].items()) == [(name, (t // times[name][0], received[name, t])) for name in now]
        for name in now:
            expected += [(t, name, "tick"), *((t, name, f"send {to}") for to in says[name])]
        expected += [(t, name, "update") for name in names if t % period[name] == 0]
    assert events == expected
    waiting = {edge: [int(h) for h, _ in queue] for edge, queue in stream.waiting.items()}
    assert waiting == {(a, b): said for (b, t), each in received.items() if t > steps for a, said in each.items()}


# --- the end ------------------------------------------------------------------------------------------------


def test_at_the_end_all_learn_from_their_losses_so_far(equal):
    """As if an update were due there; M is not run then."""
    nets, found, calls = {"a": Net("b"), "b": Net("b", "a")}, [], []
    futures = [
        lambda: None,
        lambda: RecurrentInterface(Interface(lambda h, context: calls.append(h) or h, unit=1.0)),
    ]
    for update, future in zip((5, 7), futures, strict=True):
        clocks = joined(nets, {"a": (1, update), "b": (1, update)}, future=future)
        stream = clocks.stream()
        run(stream, inputs(5))
        stream.end()
        found.append([g.clone() for g in gradients(clocks)])
        clocks.zero_grad()
    assert equal(*found)
    assert all(g.any() for g in found[0])
    assert calls == []


def test_after_the_end_a_stream_begins_again(equal):
    nets, events = {name: Net("a", "f") for name in "abcdef"}, []
    clocks = joined(nets, {name: (2, 2) for name in nets}, learnt, lambda: RecurrentInterface(learnt()))
    stream = clocks.stream(on_event=lambda *event: events.append(event))
    first = run(stream, inputs(7))
    assert stream.waiting
    assert stream.ticked
    events.clear()
    stream.end()
    assert events == [(7, name, "update") for name in nets]
    assert (stream.time, stream.states, stream.waiting, stream.losses, stream.ticked) == (0, {}, {}, {}, set())
    stream.end()  # no network has ticked
    assert len(events) == len(nets)
    for before, again in zip(first, run(stream, inputs(7)), strict=True):
        assert before.keys() == again.keys()
        assert equal([*before.values()], [*again.values()])


# --- errors -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("key", ["every", "update"])
@pytest.mark.parametrize("value", [0, -1, 0.5, 1.5])
def test_a_network_that_would_never_tick_or_learn_is_refused(key, value):
    with pytest.raises(ValueError, match=f"a: {key}={value}.*wanted a whole number from 1 up"):
        Clocks().add("a", Net(), **{key: value})


def test_a_stream_too_short_for_a_network_is_refused():
    clocks, net = Clocks(), Net()
    clocks.add("a", net, 2, 3, sgd(net.parameters()))
    clocks.add("b", Net(), 4, 3)
    assert clocks.stream(6).time == 0
    with pytest.raises(ValueError, match="network 'a' would never be updated in 5 steps; it takes 6"):
        clocks.stream(5)
    clocks.add("c", Net(), 7, 3)
    with pytest.raises(ValueError, match="network 'c' would never tick in 6 steps; it takes 7"):
        clocks.stream(6)


def test_connections_that_do_not_fit_are_refused_and_change_nothing():
    clocks, nets, interface = Clocks(), {name: Net("b") for name in "abc"}, learnt()
    with pytest.raises(ValueError, match="there is no network 'a'; there are: none"):
        clocks.connect("a", "a")
    for own, optimizer in ((learnt(), sgd(nets["a"].parameters())), (Interface(lambda h, context: h), None)):
        with pytest.raises(ValueError, match="parameters belong in a's optimizer"):
            clocks.add("a", nets["a"], optimizer=optimizer, recurrent=RecurrentInterface(own))
    clocks.add("a", nets["a"], update=4, optimizer=sgd([*nets["a"].parameters(), *interface.parameters()]))
    clocks.add("b", nets["b"], every=2, optimizer=sgd(nets["b"].parameters()))
    clocks.add("c", nets["c"], every=2, update=2)
    with pytest.raises(ValueError, match="there is a network 'b' already"):
        clocks.add("b", nets["c"])
    for edge in (("a", "d"), ("d", "a")):
        with pytest.raises(ValueError, match="there is no network 'd'; there are: a, b, c"):
            clocks.connect(*edge)
    with pytest.raises(ValueError, match=r"a → b: .*a is every 4 and b every 2 steps; give an interface, or cut"):
        clocks.connect("a", "b")
    for receiver in "bc":  # b's optimizer lacks the interface's parameters, c has no optimizer
        with pytest.raises(ValueError, match=rf"a → {receiver}: .*parameters belong in {receiver}'s optimizer"):
            clocks.connect("a", receiver, interface)
    assert clocks.connections == {}
    with pytest.raises(ValueError, match="'a' sends to 'b', to which it is not connected"):
        run(clocks.stream(), inputs(1))
    clocks.connect("a", "c")  # the same period
    clocks.connect("c", "a", interface)


# --- saved and resumed --------------------------------------------------------------------------------------


def full_system(seed):
    """Two nets that send to each other, one also to itself, with all interfaces; updated every 2 and 3 steps."""
    torch.manual_seed(seed)
    nets = {"a": Net("b"), "b": Net("b", "a")}
    return joined(nets, {"a": (1, 2), "b": (3, 1)}, learnt, lambda: RecurrentInterface(learnt(), scale=0.1), adam)


def test_a_stream_saved_and_resumed_continues_bit_for_bit(equal):
    clocks, x = full_system(0), inputs(18)
    stream = clocks.stream()
    run(stream, x[:6])
    file = io.BytesIO()
    optimizers = [optimizer.state_dict() for optimizer in optimizers_of(clocks)]
    torch.save((clocks.state_dict(), optimizers, stream.state_dict()), file)
    assert stream.waiting.keys() == {("b", "a"), ("b", "b")}
    outs = [h for out in run(stream, x[6:]) for h in out.values()]
    file.seek(0)
    other = full_system(1)
    system, optimizers, where = torch.load(file, weights_only=True)
    resumed = other.stream()
    run(resumed, x[:1])  # overwritten by load_state_dict
    other.load_state_dict(system)
    for optimizer, state in zip(optimizers_of(other), optimizers, strict=True):
        optimizer.load_state_dict(state)
    resumed.load_state_dict(where)
    assert resumed.time == 6
    assert equal([h for out in run(resumed, x[6:]) for h in out.values()], outs)
    assert equal(parameters(other), parameters(clocks))


def test_a_stream_cannot_be_saved_between_updates():
    stream, x = full_system(0).stream(), inputs(6)
    for t in range(6):
        assert t % 2 or stream.state_dict()["time"] == t  # a is between updates at 1, 3, 5; b never is
        run(stream, x[t : t + 1])
        if t % 2 == 0:
            with pytest.raises(ValueError, match="a: between updates; a stream can be saved every 6 steps"):
                stream.state_dict()


# --- evaluation ---------------------------------------------------------------------------------------------


def evaluated(clocks, how, x):
    """The outputs of a separate stream without learning."""
    clocks.train(how != "eval")
    with torch.set_grad_enabled(how == "eval"):
        stream = clocks.stream()
        outs = run(stream, x)
        stream.end()
    clocks.train()
    return [h for out in outs for h in out.values()]


@pytest.mark.parametrize("how", ["eval", "no_grad"])
def test_evaluation_learns_nothing_and_messages_arrive_unchanged(equal, how):
    clocks, x = full_system(0), inputs(12)
    run(clocks.stream(), x)  # the models have learnt something, units are known
    before = [torch.as_tensor(value).clone() for value in clocks.state_dict().values()]
    answers = [each.answer for each in clocks.interfaces.values() if isinstance(each, RecurrentInterface)]
    found = evaluated(clocks, how, x)
    assert equal([torch.as_tensor(value) for value in clocks.state_dict().values()], before)
    assert all(p.grad is None for p in clocks.parameters())
    now = [each.answer for each in clocks.interfaces.values() if isinstance(each, RecurrentInterface)]
    assert all(a is b for a, b in zip(now, answers, strict=True))  # M was not even run
    plain = joined(dict(clocks.networks.items()), {"a": (1, 99), "b": (3, 33)})
    assert equal(found, evaluated(plain, how, x))


@pytest.mark.parametrize("how", ["eval", "no_grad"])
def test_a_stream_evaluated_between_two_steps_does_not_disturb_the_one_under_way(equal, how):
    found, x = [], inputs(12)
    for disturbed in (False, True):
        clocks = full_system(0)
        stream = clocks.stream()
        for each in x:
            if disturbed:
                evaluated(clocks, how, x[:2])
            run(stream, each[None])
        found.append([*parameters(clocks), *(p.detach() for p in clocks.interfaces.parameters())])
    assert equal(*found)


# --- the gradient over a connection-------------------------------------------------------------------------


class Source(nn.Module):
    """Sends x, and a context for M."""

    def __init__(self, context):
        super().__init__()
        self.weight, self.context = nn.Parameter(torch.ones(WIDTH, dtype=F64)), context

    def forward(self, inbox, state, data):
        x, y = data
        h = x * self.weight
        return Tick(sends={"b": (h, self.context(h, y))})


class Sink(nn.Module):
    """Its loss's gradient at a message is h, and a row for each label."""

    def forward(self, inbox, state, data):
        row = nn.functional.one_hot(data[1], WIDTH) - 0.2
        return Tick(loss=torch.stack([h.square() / 2 + h * row for h in inbox["a"]]).sum())


def source_and_sink(model, context, update, steps):
    clocks, source = Clocks(), Source(context)
    interface = Interface(model.double()).double()
    clocks.add("a", source, 1, update, sgd(source.parameters()))
    clocks.add("b", Sink(), 2, 1, torch.optim.Adam(interface.parameters(), lr=3e-3))
    clocks.connect("a", "b", interface)
    stream, errors = clocks.stream(), []
    for _ in range(steps):
        data = torch.randn(BATCH, WIDTH, dtype=F64), torch.randint(WIDTH, (BATCH,))
        stream.step(data)
        stream.step(data)
        errors.append(interface.regression_loss.item())
    return clocks, errors


@pytest.mark.parametrize("labels", [True, False])
def test_m_learns_the_returning_gradient_and_sees_the_context(labels):
    model = Linear(WIDTH, context=WIDTH if labels else 0)
    _, errors = source_and_sink(model, lambda h, y: y if labels else None, 1000, 150)
    assert errors[0] == pytest.approx(1)
    assert sum(errors[-20:]) / 20 < (0.01 if labels else 0.5)
    assert (sum(errors[-20:]) / 20 > 0.1) != labels


def test_no_gradient_flows_through_a_context(equal):
    found = []
    for context in (lambda h, y: h * 2.0, lambda h, y: h.detach() * 2.0):
        torch.manual_seed(0)
        clocks, _ = source_and_sink(Linear(WIDTH, context=WIDTH), context, 3, 9)
        found.append([p.detach() for p in clocks.parameters()])
    assert equal(*found)


def test_no_gradient_comes_back_over_a_cut_connection():
    nets = {"a": Net("b"), "b": Net()}
    for cut in (False, True):
        clocks = joined(nets, {"a": (1, 3), "b": (1, 3)})
        clocks.connect("a", "b", cut=cut)
        run(clocks.stream(), inputs(3))
        assert [g.any().item() for g in gradients(clocks)] == [True, True, not cut, not cut, True, True]
        clocks.zero_grad()


@pytest.mark.parametrize("beyond", ["its own loss", "an interface"])
def test_a_network_without_an_optimizer_does_not_change_and_passes_gradients_on(equal, beyond):
    """The gradients of its loss and of M reach its senders."""
    nets, found, events = {"a": Net("b"), "b": Net("c"), "c": Net()}, [], []
    before = [p.clone() for p in nets["b"].parameters()]
    for frozen in (False, True):
        clocks, interface = Clocks(), Interface(lambda h, context: torch.ones_like(h), unit=1.0)
        for name, net in nets.items():
            clocks.add(name, net, 1, 2, None if frozen and name == "b" else Accumulate(net.parameters()))
        clocks.connect("a", "b")
        clocks.connect("b", "c", interface if beyond == "an interface" else None)
        run(clocks.stream(on_event=lambda *event: events.append(event)), inputs(4))
        found.append([g.clone() for g in gradients(clocks)[:4]])  # a's
        clocks.zero_grad()
        if frozen:
            assert [name for _, name, what in events if what == "update"] == ["a", "c"] * 2
        events.clear()
    assert equal(*found)
    assert equal([*nets["b"].parameters()], before)


def test_an_empty_batch_passes_and_teaches_nothing(equal):
    clocks = full_system(0)
    before = parameters(clocks)
    outs = run(clocks.stream(), torch.zeros(12, 0, WIDTH, dtype=F64))
    assert [len(out) for out in outs] == [1, 1, 2] * 4
    assert all(h.shape == (0, WIDTH) for out in outs for h in out.values())
    assert equal(parameters(clocks), before)


class Speaker(nn.Module):
    def __init__(self, to=None, sender=None):
        super().__init__()
        self.cell, self.to, self.sender = nn.GRUCell(4 if sender else 3, 4), to, sender

    def forward(self, inbox, state, data):
        state = self.cell(torch.stack(inbox[self.sender]).mean(0) if self.sender else data, state)
        return Tick(state, {self.to: state} if self.to else None, state.square().mean())


def test_a_network_without_an_optimizer_keeps_no_gradients():
    fast, slow, interface = Speaker("slow"), Speaker(sender="fast"), Interface(Linear(4))
    clocks = Clocks()
    clocks.add("fast", fast)
    both = torch.optim.SGD([*slow.parameters(), *interface.parameters()], lr=0.1)
    clocks.add("slow", slow, every=2, optimizer=both)
    clocks.connect("fast", "slow", interface)
    stream = clocks.stream()
    for _ in range(6):
        stream.step(torch.ones(5, 3))
        assert all(p.grad is None for p in fast.parameters())


def test_a_replaced_connection_loses_its_interface():
    clocks, interface = Clocks(), Interface(Linear(4))
    a, b = Speaker("b"), Speaker(sender="a")
    clocks.add("a", a)
    clocks.add("b", b, optimizer=torch.optim.SGD([*b.parameters(), *interface.parameters()], lr=0.1))
    clocks.connect("a", "b", interface)
    clocks.connect("a", "b", cut=True)
    assert list(clocks.interfaces) == []
