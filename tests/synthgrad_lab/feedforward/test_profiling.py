"""Which layer waits for which, by hand."""

from __future__ import annotations

from synthgrad_lab.feedforward.profiling import first_update, length, locks
from tests.helpers.written import BPROP, DNI


def test_locks_of_backprop():
    assert locks(BPROP) == [
        (1, "forward lock", 0, 0),
        (1, "update lock", 2, 5),
        (1, "backward lock", 5, 8),
        (2, "forward lock", 0, 2),
    ]
    assert first_update(BPROP) == (12, False)
    assert length(BPROP) == 12


def test_an_interface_leaves_the_forward_lock_only():
    assert locks(DNI) == [(1, "forward lock", 0, 0), (2, "forward lock", 0, 7)]
    assert first_update(DNI) == (7, True)


def test_a_layer_that_never_learns():
    assert locks(BPROP[:2]) == [(1, "forward lock", 0, 0), (2, "forward lock", 0, 2)]
    assert first_update(BPROP[:2]) is None
