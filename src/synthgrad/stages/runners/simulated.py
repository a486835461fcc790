"""All stages in one process, in ticks: lateness, losses, slowness and crashes that are the same every time."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from synthgrad.stages.channels import Links
from synthgrad.stages.channels.in_process import Queue
from synthgrad.stages.counters import Counters, Turn
from synthgrad.stages.node import Node
from synthgrad.stages.outcome import Outcome, Restart, Status
from synthgrad.stages.policy import Policy
from synthgrad.stages.ranges import check
from synthgrad.stages.stage import Stage


@dataclass(frozen=True)
class Faults:
    """What goes wrong with a stage; a tick is the time of one step."""

    lateness: int = 0
    """Ticks by which all that it sends comes late."""
    drop: float = 0.0
    """The probability that a message or gradient of its is lost."""
    slow: int = 1
    """It has a turn every so many ticks."""
    crashes: tuple[int, ...] = ()
    """Ticks at which it dies."""
    down: int = 10
    """Ticks until it is back, from its last checkpoint."""

    def __post_init__(self) -> None:
        check(vars(self), "; lateness from 0, drop from 0 to below 1, slow and down from 1")


def simulate(
    build: Callable[[int], Stage],
    stages: int,
    steps: int,
    policy: Policy,
    faults: Mapping[int, Faults],
    seed: int = 0,
    watch: Callable[[Sequence[Status]], None] = lambda statuses: None,
) -> Outcome:
    """Run the stages in turns, one per tick, the lowest first.

    Without faults this is ``unlocked`` (with input models, ``completely_unlocked``) bit for bit. See ``launch``.

    Raises:
        ValueError: if a stage with faults does not exist.
    """
    if wrong := [k for k in faults if not 0 <= k < stages]:
        raise ValueError(f"faults of stage {wrong[0]}: there are stages 0 to {stages - 1}")
    return _Simulation(build, stages, steps, policy, faults, seed, watch).run()


class _Simulation:
    def __init__(
        self,
        build: Callable[[int], Stage],
        stages: int,
        steps: int,
        policy: Policy,
        faults: Mapping[int, Faults],
        seed: int,
        watch: Callable[[Sequence[Status]], None],
    ):
        self.build, self.steps, self.watch = build, steps, watch
        # Nobody is ever silent for lack of time here: whoever is out is known to be.
        self.policy = replace(policy, silence_timeout=math.inf, start_within=math.inf, heartbeat_interval=0.0)
        self.faults = [faults.get(k, Faults()) for k in range(stages)]
        self.tick = 0
        random = torch.Generator().manual_seed(seed)
        built = [build(k) for k in range(stages)]
        # What a synthetic input stands in for is there a tick later: nobody has waited for it.
        self.later = [int(stage.unlocked) for stage in built[1:]]

        def queue(sender: int, extra: int = 0) -> Queue:
            fault = self.faults[sender]
            return Queue(lambda: self.tick, fault.lateness + extra, fault.drop, random)

        self.up = [queue(k, self.later[k]) for k in range(stages - 1)]
        # A gradient is there when the stage below has its next turn, a tick later: what is late is later than that.
        self.down = [queue(k + 1, 1) for k in range(stages - 1)]
        self.nodes: list[Node | None] = [self.node(k, stage, 1) for k, stage in enumerate(built)]
        self.generations = [1] * stages
        self.saved = [copy.deepcopy(node.state_dict()) for node in self.nodes if node]
        self.back_at = [0] * stages
        self.restarts: list[Restart] = []

    def node(self, k: int, stage: Stage, generation: int) -> Node:
        at = dict(enumerate(self.up)), dict(enumerate(self.down))
        links = Links(at[0].get(k - 1), at[1].get(k - 1), at[0].get(k), at[1].get(k))
        return Node(stage, k, links, self.steps, self.policy, generation, lambda: self.tick)

    def run(self) -> Outcome:
        late, down = (max(getattr(f, name) for f in self.faults) for name in ("lateness", "down"))
        crashes = sum(len(f.crashes) for f in self.faults)
        limit = (1 + crashes) * (self.steps * (100 * max(f.slow for f in self.faults) + 10 * late) + down) + 10_000
        while not self.over():
            for k in range(len(self.nodes)):
                self.turn(k)
            self.watch([self.status(k) for k in range(len(self.nodes))])
            self.tick += 1
            if self.tick > limit:
                raise RuntimeError(f"after {self.tick} ticks the stages have not ended: they wait for each other")
        told = [node.counters for node in self.nodes if node]
        return Outcome([node.state_dict()["stage"] for node in self.nodes if node], told, self.restarts)

    def turn(self, k: int) -> None:
        """A stage's turn in this tick, if it has one; its death, or its return."""
        fault, node = self.faults[k], self.nodes[k]
        if node is not None and self.tick in fault.crashes:
            lost = node.counters.steps - self.saved[k]["counters"]["steps"]
            self.restarts.append(Restart(k, "crash", float(self.tick), lost, float(fault.down)))
            self.nodes[k], self.back_at[k] = None, self.tick + fault.down
            self.cut(k, True)
        elif node is None and self.tick >= self.back_at[k]:
            self.generations[k] += 1
            with torch.random.fork_rng(devices=[]):  # the other stages draw on as if nothing had happened
                node = self.nodes[k] = self.node(k, self.build(k), self.generations[k])
                node.load_state_dict(copy.deepcopy(self.saved[k]))
            self.cut(k, False)
        alive = self.nodes[k]
        if alive is None or self.tick % fault.slow:
            return
        if alive.turn() is Turn.STEPPED and alive.counters.steps % self.policy.checkpoint_every == 0:
            self.saved[k] = copy.deepcopy(alive.state_dict())

    def cut(self, k: int, gone: bool) -> None:
        """What its neighbours see of a stage's death: their channels to it are cut, what was in them lost."""
        for queues, at in ((self.up, k - 1), (self.down, k)):
            if 0 <= at < len(queues):
                queues[at].cut = gone
                if gone:
                    queues[at].clear()

    def over(self) -> bool:
        """Whether all have ended, and have heard all that was still to come."""
        ended = all(node is not None and node.over for node in self.nodes)
        heard = [*self.down, *(q for q, input_model in zip(self.up, self.later, strict=True) if input_model)]
        return ended and not any(packet.tensors for q in heard for _, packet in q.under_way)

    def status(self, k: int) -> Status:
        node = self.nodes[k]
        told = replace(node.counters) if node else Counters(**self.saved[k]["counters"])
        state = "down" if node is None else "ended" if node.over else "running"
        return Status(k, state, self.generations[k], told)
