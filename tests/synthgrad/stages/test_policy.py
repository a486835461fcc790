"""Every number of a launch has a range; a value outside it is refused by name."""

import math
from dataclasses import fields

import pytest

from synthgrad.stages import Faults, Policy, launch
from synthgrad.stages.policy import RANGES
from tests.helpers import chains

NUMBERS = [f.name for f in fields(Policy) if f.name != "lockstep"]
FAULTS = [f.name for f in fields(Faults)]


def refused(name, value):
    """The error for a value of a setting."""
    with pytest.raises(ValueError, match=f"^{name}=.*: it must be at least") as error:
        given(name, value)
    return str(error.value)


def given(name, value):
    if name in NUMBERS:
        Policy(**{name: value})
    elif name in FAULTS:
        Faults(**{name: (value,) if name == "crashes" else value})
    else:
        launch(chains.build, on="simulated", **{"stages": 3, "steps": 1, name: value})


def test_every_number_has_a_range():
    assert {*NUMBERS, *FAULTS, "stages", "steps", "seed"} == {*RANGES}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", RANGES)
def test_a_value_outside_its_range_is_refused_by_name_with_the_range(name):
    allowed = RANGES[name]
    for value in (math.nan, -math.inf, allowed.least - 1, True, "1", [1], 1j):
        assert f"at least {allowed.least}" in refused(name, value)
    if not math.isinf(allowed.most):
        assert str(allowed.most) in refused(name, math.inf)
        refused(name, allowed.most + (0 if allowed.below else max(allowed.most, 1)))
    if allowed.whole:
        assert refused(name, allowed.least + 0.5).endswith(("a whole number", "1 step", "from 1"))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "wrong", [{"queue": None}, {"heartbeat_interval": None}, {"lockstep": 1}, {"lockstep": "yes"}], ids=str
)
def test_none_is_refused_as_a_number_and_one_as_a_bool(wrong):
    with pytest.raises(ValueError, match="it must be"):
        Policy(**wrong)


@pytest.mark.usefixtures("unchecked")
def test_ranges_include_their_ends():
    for name in NUMBERS:
        for value in RANGES[name][:2]:
            Policy(**{name: value})
    Policy(max_staleness=None)


def test_threads_that_would_crash_torch_are_refused():
    assert "at most 1024" in refused("threads", 100_000)


@pytest.mark.parametrize("seed", [-(2**63), 2**64 - 1])
def test_the_largest_seeds_are_accepted(seed):
    launch(chains.build, 3, 1, "simulated", seed=seed)


@pytest.mark.parametrize(
    "wrong",
    [{"queue": 0}, {"in_flight": 0}, {"checkpoint_every": 0}, {"threads": 0}, {"limit": 0}, {"replay": -1},
     {"max_restarts": -1}, {"silence_timeout": -1.0}, {"hang_timeout": 0.0}],
    ids=str,
)  # fmt: skip
def test_a_policy_that_cannot_work_is_refused(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"{name}={value}: it must be at least"):
        Policy(**wrong)


def test_the_default_policy_and_the_smallest_one():
    Policy()
    Policy(
        queue=1, in_flight=1, checkpoint_every=1, threads=1, limit=1, replay=0, max_restarts=0, silence_timeout=0.0
    )
