"""Simulates the stages in one process, in ticks: lateness, losses, slowness and crashes are repeatable."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from synthgrad.stages.channels import Links
from synthgrad.stages.channels.in_process import Queue
from synthgrad.stages.counters import Counters
from synthgrad.stages.node import Node, TurnResult
from synthgrad.stages.outcome import Outcome, Restart, Status
from synthgrad.stages.policy import Policy, check_ranges
from synthgrad.stages.stage import Stage


@dataclass(frozen=True)
class Faults:
    """The faults of a simulated stage; a tick is the time of one step."""

    lateness: int = 0
    """Ticks by which everything that it sends is late."""
    drop: float = 0.0
    """The probability that a message or gradient that it sends is lost."""
    slow: int = 1
    """Ticks per turn."""
    crashes: tuple[int, ...] = ()
    """Ticks at which it dies."""
    down: int = 10
    """Ticks until it is restarted from its last checkpoint."""

    def __post_init__(self) -> None:
        check_ranges(vars(self), "; lateness from 0, drop from 0 to below 1, slow and down from 1")


def simulate(
    build: Callable[[int], Stage],
    stages: int,
    steps: int,
    policy: Policy,
    faults: Mapping[int, Faults],
    seed: int = 0,
    watch: Callable[[Sequence[Status]], None] = lambda statuses: None,
) -> Outcome:
    """Run all stages in one process; in each tick every stage has a turn, the lowest first.

    Without faults this gives the numbers of ``unlocked`` (with input models, ``completely_unlocked``) bit for bit.
    See ``launch`` for the arguments.

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
        # A simulated stage is down only if it has crashed, never because it was silent.
        self.policy = replace(policy, silence_timeout=math.inf, start_within=math.inf, heartbeat_interval=0.0)
        self.faults = [faults.get(k, Faults()) for k in range(stages)]
        self.tick = 0
        random = torch.Generator().manual_seed(seed)
        built = [build(k) for k in range(stages)]
        # A message to a stage with an input model comes a tick later: that stage has not waited for it.
        self.message_delay = [int(stage.unlocked) for stage in built[1:]]

        def queue(sender: int, delay: int) -> Queue:
            fault = self.faults[sender]
            return Queue(lambda: self.tick, fault.lateness + delay, fault.drop, random)

        self.up = [queue(k, self.message_delay[k]) for k in range(stages - 1)]
        # A gradient is in time if it is there at the next turn of the stage below, a tick later.
        self.down = [queue(k + 1, 1) for k in range(stages - 1)]
        self.nodes: list[Node | None] = [self.make_node(k, stage, 1) for k, stage in enumerate(built)]
        self.generations = [1] * stages
        self.saved = [copy.deepcopy(node.state_dict()) for node in self.nodes if node]
        self.back_at = [0] * stages
        self.restarts: list[Restart] = []

    def make_node(self, k: int, stage: Stage, generation: int) -> Node:
        up, down = dict(enumerate(self.up)), dict(enumerate(self.down))
        links = Links(up.get(k - 1), down.get(k - 1), up.get(k), down.get(k))
        return Node(stage, k, links, self.steps, self.policy, generation, lambda: self.tick)

    def run(self) -> Outcome:
        late, down, slow = (max(getattr(f, name) for f in self.faults) for name in ("lateness", "down", "slow"))
        crashes = sum(len(f.crashes) for f in self.faults)
        limit = (1 + crashes) * (self.steps * (100 * slow + 10 * late) + down) + 10_000
        while not self.ended():
            for k in range(len(self.nodes)):
                self.turn(k)
            self.watch([self.status(k) for k in range(len(self.nodes))])
            self.tick += 1
            if self.tick > limit:
                raise RuntimeError(f"after {self.tick} ticks the stages have not ended: they wait for each other")
        nodes = [node for node in self.nodes if node]
        states, counters = [node.state_dict()["stage"] for node in nodes], [node.counters for node in nodes]
        return Outcome(states, counters, self.restarts)

    def turn(self, k: int) -> None:
        """Let a stage crash, restart or make a turn in this tick."""
        fault, node = self.faults[k], self.nodes[k]
        if node is not None and self.tick in fault.crashes:
            lost = node.counters.steps - self.saved[k]["counters"]["steps"]
            self.restarts.append(Restart(k, "crash", float(self.tick), lost, float(fault.down)))
            self.nodes[k], self.back_at[k] = None, self.tick + fault.down
            self.set_cut(k, True)
        elif node is None and self.tick >= self.back_at[k]:
            self.generations[k] += 1
            with torch.random.fork_rng(devices=[]):  # the other stages' random numbers stay the same
                node = self.nodes[k] = self.make_node(k, self.build(k), self.generations[k])
                node.load_state_dict(copy.deepcopy(self.saved[k]))
            self.set_cut(k, False)
        alive = self.nodes[k]
        if alive is None or self.tick % fault.slow:
            return
        if alive.turn() is TurnResult.STEPPED and alive.counters.steps % self.policy.checkpoint_every == 0:
            self.saved[k] = copy.deepcopy(alive.state_dict())

    def set_cut(self, k: int, cut: bool) -> None:
        """Cut the channels to a stage, which loses the packets in them, or reconnect them."""
        for queues, at in ((self.up, k - 1), (self.down, k)):
            if 0 <= at < len(queues):
                queues[at].cut = cut
                if cut:
                    queues[at].clear()

    def ended(self) -> bool:
        """Whether all stages have ended, and have received everything from which they still learn."""
        ended = all(node is not None and node.ended for node in self.nodes)
        queues = [*self.down, *(q for q, delay in zip(self.up, self.message_delay, strict=True) if delay)]
        return ended and not any(packet.tensors for q in queues for _, packet in q.under_way)

    def status(self, k: int) -> Status:
        node = self.nodes[k]
        counters = replace(node.counters) if node else Counters(**self.saved[k]["counters"])
        state = "down" if node is None else "ended" if node.ended else "running"
        return Status(k, state, self.generations[k], counters)
