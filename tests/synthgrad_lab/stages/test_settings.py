"""Settings of a launch: parsed from words, checked, read back from records."""

import json
from dataclasses import asdict

import pytest
import tyro

from synthgrad.stages import Policy
from synthgrad_lab.stages.settings import Launch, launch_from


def test_a_launch_is_parsed_from_words():
    words = "--stages 2 --lateness 3 --on simulated --policy.queue 4 --crashes 5 6"
    how = tyro.cli(Launch, args=words.split())
    assert (how.stages, how.lateness, how.policy.queue, how.crashes) == (2, 3, 4, (5, 6))
    assert set(how.faults(2)) == {0, 1}
    assert how.faults(2)[0].lateness == 3


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"drop": 0.1}, "belong to on=simulated"),
        ({"down": 3}, "belong to on=simulated"),
        ({"drop": float("nan"), "on": "simulated"}, "drop=nan: it must be from 0"),
        ({"stages": 0}, "stages=0: it must be a number of at least 2"),
        ({"on": "simulated", "faulty": 1}, "faulty=1 has no fault"),
        ({"stages": 3, "at": ("h1",)}, "stages=3 and at=h1 say different things"),
        ({"address": "auto"}, "belong to a Ray cluster"),
    ],
)
def test_numbers_out_of_range_and_contradictions_are_refused(settings, error):
    with pytest.raises(ValueError, match=error):
        Launch(**settings)


def test_a_policy_checks_its_own_numbers():
    with pytest.raises(ValueError, match="at least 1"):
        Policy(queue=0)
    with pytest.raises(ValueError, match="threads=100000: it must be at least 1 and at most 1024"):
        Policy(threads=100_000)


def test_a_stage_with_faults_must_exist():
    with pytest.raises(ValueError, match="faulty=4: there are stages 0 to 3"):
        Launch(on="simulated", lateness=1, faulty=4).faults(4)


def test_a_launch_is_read_back_from_its_record():
    how = Launch(on="simulated", crashes=(3, 5), policy=Policy(queue=2, max_staleness=4))
    values = json.loads(json.dumps({**asdict(how), "cuts": [1]}))
    assert launch_from(values) == how
    with pytest.raises(ValueError, match="no longer exist: patience"):
        launch_from({**values, "patience": 1})
