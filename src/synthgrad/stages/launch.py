"""One call for every way to run the stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from synthgrad.stages.outcome import Outcome, Status
from synthgrad.stages.policy import Policy, check_ranges
from synthgrad.stages.runners.simulated import Faults, simulate
from synthgrad.stages.stage import Stage

Build = Callable[[int], Stage]
"""Makes stage k. It runs in that stage's process: a function of a module, or a ``functools.partial`` of one."""
Watch = Callable[[Sequence[Status]], None]
"""Called several times a second with the status of every stage."""


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
        stages: the number of stages.
        steps: the number of steps; the first stage asks for the data of each once.
        on: "simulated" runs the stages in turns in this process, exactly repeatable; "processes" runs each in a
            process of this machine; "ray" runs each on a Ray cluster.
        folder: for the stages' checkpoints; without one they are deleted at the end. For Ray, a folder that all
            machines share.
        resume: whether to resume from the checkpoints in the folder.
        policy: how long stages wait, how often they are saved and restarted, and so on.
        faults: the faults of a simulation, by stage.
        seed: decides which packets a simulation loses.
        address: of a Ray cluster; the default is a new one on this machine, for this launch only.
        hosts: the addresses of machines of a Ray cluster; the stages are placed on them in turn. By default Ray
            spreads the stages.
        watch: called several times a second (in a simulation, after each tick).

    Returns:
        The stages' last states, their counters, the restarts, and a timeline.

    Raises:
        StageFailed: if a stage fails every time, with its traceback; or if one made less than half of the steps
            for which it was sent messages: then the error's ``outcome`` has the states of all stages.
        Stopped: after Ctrl-C; with a folder, ``resume=True`` resumes the run.
        FileExistsError: if the folder holds a run and ``resume`` is False.
        BlockingIOError: if another launch uses the folder.
        ValueError: if a setting is out of its range, or an address or a host does not exist.

    Example:
        >>> outcome = launch(build, stages=4, steps=3000)
    """
    check_ranges({"stages": stages, "steps": steps, "seed": seed}, "; a chain has at least 2 stages and 1 step")
    policy = policy or Policy()
    if on != "simulated" and faults:
        raise ValueError('faults are for on="simulated"; real stages have their own')
    if on == "simulated":
        outcome = simulate(build, stages, steps, policy, faults or {}, seed, watch)
        return outcome.report_losses(steps, expected=bool(faults))
    settings = build, stages, steps, policy, folder, resume, watch
    if on == "ray":
        from synthgrad.stages.runners.ray_cluster import Cluster

        return Cluster(address, hosts, *settings).run().report_losses(steps)
    if on == "processes":
        from synthgrad.stages.runners.processes import Supervisor

        return Supervisor(*settings).run().report_losses(steps)
    raise ValueError(f'on={on!r}: wanted "simulated", "processes" or "ray"')
