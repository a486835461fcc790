import pytest

from synthgrad_lab.feedforward.bench import memory, step
from synthgrad_lab.recurrent import bench as recurrent


def test_arithmetic_is_counted_as_by_hand():
    rows = {row["case"]: row for row in step.bench_step(width=64, repeats=1)}
    layers = [784 * 64, 64 * 64, 64 * 64, 64 * 10]
    bprop = 2 * layers[0] + 3 * sum(layers[1:])  # the lowest layer needs no gradient of its input
    linear = 3 * (2 * 64 * 64 + 2 * 10 * 64)  # per edge: M forwards, and the gradient of its weights
    assert rows["cDNI, linear M"]["arithmetic"] == pytest.approx((bprop + linear) / bprop)
    assert rows["Bprop"]["ratio"] == rows["Bprop"]["arithmetic"] == 1
    assert len(rows) == 4


def test_unlocked_memory_is_flat_in_depth_where_backprops_is_linear():
    peaks = {
        (method, depth): memory.measured(method, depth, width=64, batch=1024)
        for method in ("bprop", "cdni")
        for depth in (4, 16)
    }
    assert peaks["cdni", 16] == pytest.approx(peaks["cdni", 4], rel=0.05)
    assert peaks["bprop", 16] > 3 * peaks["bprop", 4]


def test_an_update_of_a_recurrent_net_needs_no_more_memory_later_in_the_stream(monkeypatch):
    monkeypatch.setattr(recurrent, "CELLS", ("rnn",))
    monkeypatch.setattr(recurrent, "LATER", 20)
    rows = {row["method"]: row for row in recurrent.bench_recurrent(units=8, T=3, repeats=1)}
    assert rows["BPTT"]["ratio"] == 1
    for row in rows.values():
        assert row["ms"] > 0
        assert 0 < row["memory_later_kb"] <= 1.1 * row["memory_kb"]
    assert rows["DNI"]["memory_kb"] > rows["BPTT"]["memory_kb"]
