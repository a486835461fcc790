"""Simulated stages: without faults the reference loop bit for bit; with faults repeatable, and they end."""

import math
from collections import Counter
from functools import partial
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from synthgrad.stages import Faults, Policy, launch
from tests.helpers import chains

STEPS = 24


class Log:
    """Records all steps in the order in which they were made, and all statuses."""

    def __init__(self, **settings):
        self.steps, self.statuses, self.ticks = [], [], []
        self.settings = settings

    def seen(self, k, step):
        self.steps.append((k, step))

    def watch(self, statuses):
        self.statuses.append(statuses)
        self.ticks.append(len(self.steps))

    def run(self, steps=STEPS, faults=None, seed=0, **policy):
        """Run three stages."""
        build = partial(chains.build, seen=self.seen, **self.settings)
        return launch(
            build, 3, steps, "simulated", policy=Policy(**policy), faults=faults, seed=seed, watch=self.watch
        )

    def of(self, k):
        return [step for stage, step in self.steps if stage == k]


def run(steps=STEPS, faults=None, seed=0, **policy):
    return Log().run(steps, faults, seed, **policy)


def numbers(outcome):
    """Everything that must be the same in a repetition."""
    counters = [{name: str(value) for name, value in vars(each).items()} for each in outcome.counters]
    return chains.parameters_of(outcome), counters, outcome.restarts


def same(a, b):
    (p, *rest), (q, *other) = numbers(a), numbers(b)
    return rest == other and all(map(torch.equal, p, q))


# --- without faults ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stages", [2, 3, 5])
@pytest.mark.parametrize("complete", [False, True], ids=["unlocked", "completely unlocked"])
@pytest.mark.parametrize("lockstep", [False, True])
def test_without_faults_it_is_the_reference_bit_for_bit(equal, stages, complete, lockstep):
    build = partial(chains.build, stages=stages, complete=complete)
    outcome = launch(build, stages, STEPS, "simulated", policy=Policy(lockstep=lockstep))
    expected = chains.learnt(STEPS, stages, complete)
    start = chains.parameters([build(k) for k in range(stages)])
    assert not any(torch.equal(p, q) for p, q in zip(expected, start, strict=True))
    assert equal(chains.parameters_of(outcome, complete), expected)


def test_the_counters_and_statuses_of_a_run():
    log = Log()
    outcome = log.run()
    assert (
        [counters.steps for counters in outcome.counters]
        == [counters.clock for counters in outcome.counters]
        == [STEPS] * 3
    )
    assert [counters.learnt for counters in outcome.counters] == [STEPS, STEPS, 0]
    assert [counters.staleness for counters in outcome.counters[:2]] == [0, 0]
    assert all(
        counters.dropped == counters.lost == counters.refused == counters.replayed == 0
        for counters in outcome.counters
    )
    assert [math.isfinite(counters.loss) for counters in outcome.counters] == [False, False, True]
    assert [math.isfinite(counters.regression_loss) for counters in outcome.counters] == [True, True, False]
    assert outcome.restarts == []
    assert log.steps == [(k, step) for step in range(STEPS) for k in range(3)]
    last = log.statuses[-1]
    assert [(status.k, status.state, status.generation) for status in last] == [(k, "ended", 1) for k in range(3)]
    assert [status.state for status in log.statuses[0]] == ["running"] * 3


def test_the_states_are_state_dicts_of_stages():
    outcome = run()
    assert all(set(state) <= {"part", "optimizer", "above"} for state in outcome.states)
    stage = chains.build(1)
    stage.load_state_dict(outcome.states[1])
    made = {state["step"].item() for state in stage.optimizer.state_dict()["state"].values()}
    assert made == {STEPS}


# --- with faults -------------------------------------------------------------------------------------------


FAULTS = {
    "late": {1: Faults(lateness=3)},
    "lossy": {k: Faults(drop=0.4) for k in range(3)},
    "slow": {1: Faults(slow=4)},
    "crash": {1: Faults(crashes=(9,), down=5)},
    "all": {0: Faults(lateness=2, drop=0.2), 1: Faults(slow=2, crashes=(12, 25), down=3), 2: Faults(drop=0.3)},
}


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("complete", [False, True])
def test_the_same_seed_gives_the_same_numbers(faults, complete):
    outcomes = []
    for noise in range(2):
        torch.manual_seed(noise)  # must not matter
        build = partial(chains.build, complete=complete)
        policy = Policy(checkpoint_every=4, replay=3)
        outcomes.append(launch(build, 3, STEPS, "simulated", policy=policy, faults=faults, seed=5))
    (a, *rest), (b, *other) = (
        (chains.parameters_of(outcome, complete),
         [{n: str(v) for n, v in vars(t).items()} for t in outcome.counters],
         outcome.restarts) for outcome in outcomes
    )  # fmt: skip
    assert rest == other
    assert all(map(torch.equal, a, b))
    reference = chains.learnt(STEPS, 3, complete)
    assert not all(map(torch.equal, a, reference))


def test_another_seed_loses_other_packets():
    faults = {k: Faults(drop=0.4) for k in range(3)}
    assert same(run(faults=faults, seed=1), run(faults=faults, seed=1))
    assert not same(run(faults=faults, seed=1), run(faults=faults, seed=2))


@pytest.mark.parametrize("lateness", [0, 1, 4])
def test_staleness_is_the_lateness_in_both_directions(lateness):
    """The lateness of a message adds to that of its gradient."""
    outcome = run(200, {0: Faults(lateness=lateness), 1: Faults(lateness=lateness)}, queue=32)
    assert outcome.counters[0].staleness == pytest.approx(
        2 * lateness, abs=0.5
    )  # less near the end, when no more steps are made
    assert outcome.counters[1].staleness == pytest.approx(lateness, abs=0.3)
    assert outcome.counters[0].learnt == 200


def test_gradients_that_are_too_late_teach_nothing():
    faults = {1: Faults(lateness=5)}
    outcome = run(60, faults, max_staleness=4)
    for counters in outcome.counters[:2]:  # late gradients for one stage, late messages for the other
        assert (counters.learnt, counters.lost) == (5, 55)  # near the end, when no more steps are made
    assert run(60, faults, max_staleness=5).counters[0].learnt == 60


def test_messages_without_a_gradient_are_forgotten():
    faults = {1: Faults(lateness=5)}
    assert run(60, faults, in_flight=6).counters[0].learnt == 60
    assert run(60, faults, in_flight=5).counters[0].learnt == 5


def test_lost_gradients_and_lost_messages_teach_nothing():
    log = Log()
    outcome = log.run(200, {0: Faults(drop=0.5)})
    assert log.of(0) == list(range(200))
    assert log.of(1) == log.of(2) == sorted(set(log.of(1)))
    assert 70 < len(log.of(1)) < 130
    assert outcome.counters[0].learnt == outcome.counters[1].learnt == len(log.of(1)) == outcome.counters[1].steps
    log = Log()
    outcome = log.run(200, {2: Faults(drop=0.5)})
    assert log.of(2) == list(range(200))
    assert 70 < outcome.counters[1].learnt < 130
    assert outcome.counters[0].learnt == 200


def test_a_slow_stage_throttles_its_predecessor():
    """Then no sample is lost."""
    log = Log()
    outcome = log.run(40, {1: Faults(slow=3)}, queue=4)
    assert all(log.of(k) == list(range(40)) for k in range(3))
    assert not any(counters.dropped for counters in outcome.counters)
    ahead = [statuses[0].counters.clock - statuses[1].counters.clock for statuses in log.statuses]
    assert max(ahead) == 4 + 1  # four under way, and one queued
    assert max(status.counters.queue for statuses in log.statuses for status in statuses) == 4 + 1


def test_an_impatient_stage_is_not_throttled():
    log = Log(complete=True)
    outcome = log.run(40, {1: Faults(slow=3)}, queue=2)
    assert [log.statuses[40][0].counters.clock, log.statuses[40][1].counters.clock] == [40, 14]
    assert all(log.of(k) == list(range(40)) for k in range(3))
    assert outcome.counters[0].dropped > 0


def test_the_clock_of_a_slow_stage():
    log = Log()
    log.run(10, {2: Faults(slow=5)})
    clocks = [statuses[2].counters.clock for statuses in log.statuses]
    assert clocks[:11] == [1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3]


# --- crashes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", range(3))
def test_a_stage_is_restarted_from_its_checkpoint(k):
    log = Log()
    outcome = log.run(60, {k: Faults(crashes=(23,), down=4)}, checkpoint_every=10)
    (restart,) = outcome.restarts
    assert (restart.k, restart.why, restart.at, restart.seconds) == (k, "crash", 23, 4)
    assert restart.steps_lost == 3  # 23 steps had been made, 20 saved
    states = [statuses[k].state for statuses in log.statuses]
    assert states[:23] == ["running"] * 23
    assert states[23:27] == ["down"] * 4
    assert states[27] == "running"
    assert [statuses[k].counters.steps for statuses in log.statuses[22:28]][:5] == [23, 20, 20, 20, 20]
    assert [statuses[k].generation for statuses in log.statuses[22:28]] == [1] * 5 + [2]
    assert log.statuses[-1][k].state == "ended"
    assert all(counters.clock == 60 for counters in outcome.counters)


@pytest.mark.parametrize("k", range(3))
def test_a_restarted_stage_has_the_weights_of_its_checkpoint(equal, k):
    built, before = {}, []

    def seen(stage, step):
        if stage == k:
            before.append([p.detach().clone() for p in built[k].part.parameters()])

    def build(stage):
        built[stage] = chains.build(stage, seen=seen)
        return built[stage]

    faults = {k: Faults(crashes=(23,), down=4)}
    launch(build, 3, 60, "simulated", policy=Policy(checkpoint_every=10), faults=faults)
    assert equal(before[23], before[20])  # the first step after the restart
    assert not equal(before[22], before[20])


def test_the_steps_after_a_checkpoint_are_made_again():
    """The first stage repeats its steps, and sends the same messages again."""
    log = Log()
    log.run(60, {0: Faults(crashes=(23,), down=4)}, checkpoint_every=10)
    assert log.of(0) == [*range(23), *range(20, 60)]
    assert log.of(1) == [*range(23), *range(20, 60)]


def test_the_last_stage_misses_the_messages_that_it_had_not_received():
    """The stage below drops messages that find no room, and continues."""
    log = Log()
    outcome = log.run(60, {2: Faults(crashes=(20,), down=15)}, checkpoint_every=10, queue=4)
    assert log.of(1) == list(range(60))
    assert log.of(2) == [*range(20), *range(32, 60)]  # it died with 20; the last 4 of 21 to 35 were kept
    assert outcome.counters[1].dropped == 11


def test_before_its_first_checkpoint_a_stage_starts_from_the_beginning():
    outcome = run(60, {2: Faults(crashes=(5,), down=3)}, checkpoint_every=10)
    assert outcome.restarts[0].steps_lost == 5
    untouched = run(60, {2: Faults(crashes=(0,), down=3)}, checkpoint_every=10)
    assert untouched.restarts[0].steps_lost == 0


def test_a_crash_after_the_end_does_not_happen():
    assert run(10, {1: Faults(crashes=(500,))}).restarts == []


@pytest.mark.parametrize("k", range(3))
@pytest.mark.parametrize("lateness", [0, 6])
def test_a_run_with_a_crash_near_the_end_ends(k, lateness):
    """The other stages have ended, and receive none of the steps that are made again."""
    for tick in (18, 20, 21, 25, 30):
        faults = {stage: Faults(lateness=lateness) for stage in range(3)}
        faults[k] = Faults(crashes=(tick,), down=2, lateness=lateness)
        outcome = run(20, faults, checkpoint_every=7, queue=2)
        assert outcome.counters[0].clock == 20


@pytest.mark.parametrize("k", range(3))
def test_lockstep_survives_a_crash(k):
    for tick in range(4, 9):
        outcome = run(20, {k: Faults(crashes=(tick,), down=3)}, checkpoint_every=3, lockstep=True)
        assert all(counters.clock == 20 for counters in outcome.counters)


def test_lockstep_survives_losses():
    outcome = run(40, {k: Faults(drop=0.3) for k in range(3)}, lockstep=True)
    assert outcome.counters[0].steps == 40


def test_a_stage_replays_past_messages_while_the_one_below_is_down():
    faults = {0: Faults(crashes=(20,), down=15)}
    log = Log()
    outcome = log.run(60, faults, checkpoint_every=10, replay=5)
    assert [outcome.counters[k].replayed for k in range(3)] == [0, 15, 0]  # the last one's neighbour is alive
    down = log.statuses[21:34]
    assert [b[1].counters.steps - a[1].counters.steps for a, b in pairwise(down)] == [1] * 12
    assert len({statuses[1].counters.clock for statuses in down}) == 1
    assert run(60, faults, checkpoint_every=10).counters[1].replayed == 0


def test_replay_changes_what_is_learnt_not_what_is_sent():
    faults = {0: Faults(crashes=(20,), down=15)}
    logs = [Log(), Log()]
    outcomes = [log.run(60, faults, replay=replay) for log, replay in zip(logs, (0, 5), strict=True)]
    assert logs[0].of(2) == logs[1].of(2)
    assert not same(*outcomes)


@given(st.data())
@settings(max_examples=25)
def test_with_any_faults_a_run_ends_and_no_message_is_used_twice(data):
    steps = data.draw(st.integers(1, 15), label="steps")
    fault = st.fixed_dictionaries(
        {
            "lateness": st.integers(0, 4),
            "drop": st.sampled_from([0.0, 0.0, 0.2, 0.9]),
            "slow": st.integers(1, 4),
            "crashes": st.lists(st.integers(0, 40), max_size=3, unique=True).map(tuple),
            "down": st.integers(1, 12),
        }
    )
    drawn = data.draw(st.dictionaries(st.integers(0, 2), fault), label="faults")
    faults = {k: Faults(**each) for k, each in drawn.items()}  # beartype uses random numbers: not in a strategy
    policy = data.draw(
        st.fixed_dictionaries(
            {
                "queue": st.integers(1, 4),
                "in_flight": st.integers(1, 8),
                "max_staleness": st.none() | st.integers(0, 3),
                "replay": st.integers(0, 3),
                "lockstep": st.booleans(),
                "checkpoint_every": st.integers(1, 6),
            }
        ),
        label="policy",
    )
    log = Log(complete=data.draw(st.booleans(), label="complete"))
    outcome = log.run(steps, faults, data.draw(st.integers(0, 3), label="seed"), **policy)
    crashes = len(outcome.restarts)
    down = sum(restart.seconds + faults[restart.k].lateness + 20 for restart in outcome.restarts)
    for k, counters in enumerate(outcome.counters):
        assert 0 <= counters.clock <= steps
        assert counters.steps <= steps * (1 + crashes) + (down if policy["replay"] else 0)
        assert counters.steps - counters.replayed <= steps * (1 + crashes)
        if not crashes:
            assert log.of(k) == sorted(set(log.of(k)))
            assert counters.steps == len(log.of(k))
            assert counters.replayed == 0
            if k == 0 or log.settings["complete"]:
                assert counters.steps == steps
    if not policy["replay"]:
        assert all(restart.steps_lost <= policy["checkpoint_every"] for restart in outcome.restarts)
    generations = Counter(restart.k for restart in outcome.restarts)
    assert [status.generation - 1 for status in log.statuses[-1]] == [generations[k] for k in range(3)]


# --- refused settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong", [{"lateness": -1}, {"drop": -0.1}, {"drop": 1.0}, {"slow": 0}, {"down": 0}], ids=str
)
def test_impossible_faults_are_refused(wrong):
    with pytest.raises(ValueError, match="lateness from 0, drop from 0 to below 1, slow and down from 1"):
        Faults(**wrong)


@pytest.mark.parametrize("k", [-1, 3])
def test_faults_of_a_stage_that_does_not_exist_are_refused(k):
    with pytest.raises(ValueError, match=f"faults of stage {k}: there are stages 0 to 2"):
        run(faults={k: Faults()})


def test_an_impossible_launch_is_refused():
    for settings_ in ({"stages": 1}, {"steps": 0}):
        with pytest.raises(ValueError, match="a chain has at least 2 stages and 1 step"):
            launch(chains.build, **{"stages": 3, "steps": 1, **settings_}, on="simulated")
    with pytest.raises(ValueError, match='faults are for on="simulated"'):
        launch(chains.build, 3, 1, "processes", faults={0: Faults()})


@pytest.mark.usefixtures("unchecked")
def test_there_are_three_ways_to_run():
    with pytest.raises(ValueError, match='on=\'threads\': wanted "simulated", "processes" or "ray"'):
        launch(chains.build, 3, 1, "threads")
