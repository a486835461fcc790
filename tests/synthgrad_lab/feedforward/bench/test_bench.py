"""Benchmarks: counted arithmetic, memory over depth, and the rows of each."""

import pytest

from synthgrad_lab.feedforward.bench import BENCHES, step
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
        (method, depth): step.peak_of_chain(method, depth, width=64, batch=1024)
        for method in ("bprop", "cdni")
        for depth in (4, 16)
    }
    assert peaks["cdni", 16] == pytest.approx(peaks["cdni", 4], rel=0.05)
    assert peaks["bprop", 16] > 3 * peaks["bprop", 4]


def test_a_step_is_measured_at_every_width():
    bars = []

    def bar(name, total):
        bars.append((name, total))
        return lambda done: None

    rows, timelines = BENCHES["step"](widths=(8, 16), repeats=1).measure(bar)
    assert [row["width"] for row in rows] == [8] * 4 + [16] * 4
    assert timelines == {}
    assert bars == [("width 8", 1), ("width 16", 1)]


@pytest.mark.parametrize(
    ("name", "options"),
    [("step", {"repeats": 0}), ("step", {"widths": (0,)}), ("methods", {"repeats": 0}), ("memory", {"batch": 1})],
)
def test_options_out_of_range(name, options):
    with pytest.raises(ValueError, match=f"{next(iter(options))}=.: it must be"):
        BENCHES[name](**options)


def test_an_update_of_a_recurrent_net_needs_no_more_memory_later_in_the_stream(monkeypatch):
    monkeypatch.setattr(recurrent, "CELLS", ("rnn",))
    monkeypatch.setattr(recurrent, "LATER", 20)
    measured, _ = recurrent.Recurrent(widths=(8,), T=3, repeats=1).measure(lambda name, total: lambda done: None)
    rows = {row["method"]: row for row in measured}
    assert rows["BPTT"]["ratio"] == 1
    for row in rows.values():
        assert row["ms"] > 0
        assert 0 < row["memory_later_kb"] <= 1.1 * row["memory_kb"]
    assert rows["DNI"]["memory_kb"] > rows["BPTT"]["memory_kb"]
