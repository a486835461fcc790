"""One call for every way to run the stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from synthgrad.stages.outcome import Outcome, Status
from synthgrad.stages.policy import Policy
from synthgrad.stages.ranges import check
from synthgrad.stages.runners.simulated import Faults, simulate
from synthgrad.stages.stage import Stage

Build = Callable[[int], Stage]
"""Makes stage k. It runs in that stage's process: a function of a module, or a ``functools.partial`` of one."""
Watch = Callable[[Sequence[Status]], None]
"""Called several times a second with how every stage is doing."""


def launch(
    build: Build,
    stages: int,
    steps: int,
    on: str = "processes",
    *,
    folder: str | Path | None = None,
    resume: bool = False,
    policy: Policy | None = None,
    faults: Mapping[int, Faults] | None = None,
    seed: int = 0,
    address: str | None = None,
    hosts: Sequence[str] = (),
    watch: Watch = lambda statuses: None,
) -> Outcome:
    """Train the stages of a chain to the end of their steps.

    Args:
        build: makes stage k, with weights that depend on nothing but k.
        stages: how many.
        steps: of the data; the first stage asks for each once.
        on: simulated, one after the other in this process, exactly repeatable; processes of this machine; or ray.
        folder: of the stages' checkpoints; without one they are gone at the end. On Ray, one that
            all machines share.
        resume: go on from the checkpoints in the folder.
        policy: how long a stage waits for whom, how often it is saved, restarted, …
        faults: of a simulation, by stage.
        seed: of a simulation's losses.
        address: of a Ray cluster; the default is one on this machine, for this launch only.
        hosts: machines of a Ray cluster, by address, for one stage after the other, in turn; by default Ray
            spreads the stages.
        watch: called several times a second (in a simulation, after each tick).

    Returns:
        The stages' last states, what became of their messages, restarts, and a timeline.

    Raises:
        StageFailed: if a stage fails every time, with its traceback; or if one ends with less than half of the
            steps that it was sent: then the error's ``outcome`` has what there is.
        Stopped: after Ctrl-C; with a folder, ``resume=True`` goes on.
        FileExistsError: if the folder holds a run, and is not to be resumed.
        BlockingIOError: if a run is under way there.
        ValueError: if there is no such stage, policy, address or host.

    Example:
        >>> outcome = launch(build, stages=4, steps=3000)
    """
    check({"stages": stages, "steps": steps, "seed": seed}, "; a chain has at least 2 stages and 1 step")
    policy = policy or Policy()
    if on != "simulated" and faults:
        raise ValueError('faults are for on="simulated"; real stages have their own')
    if on == "simulated":
        outcome = simulate(build, stages, steps, policy, faults or {}, seed, watch)
        return outcome.judged(steps, ordered=bool(faults))
    of_all = build, stages, steps, policy, folder, resume, watch
    if on == "ray":
        from synthgrad.stages.runners.ray_cluster import Cluster

        return Cluster(address, hosts, *of_all).run().judged(steps)
    if on == "processes":
        from synthgrad.stages.runners.processes import Supervisor

        return Supervisor(*of_all).run().judged(steps)
    raise ValueError(f'on={on!r}: wanted "simulated", "processes" or "ray"')
