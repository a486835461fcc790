"""How long a stage waits for whom, and what is kept for a restart."""

from __future__ import annotations

from dataclasses import dataclass

from synthgrad.stages.ranges import check


@dataclass(frozen=True)
class Policy:
    """Settings of a launch; times are in seconds (in a simulation, ticks)."""

    queue: int = 8
    """Messages that may be under way to the stage above; with more, a stage waits while that one is alive, and
    drops the oldest once it is dead or hung."""
    silence_timeout: float = 1.0
    """A neighbour that is silent for so long, and for five of its usual times between words, is taken for hung.
    (Death is seen at once.)"""
    start_within: float = 120.0
    """How long a stage may take to say its first word, and to make its first step."""
    heartbeat_interval: float = 0.02
    """How often a stage that has nothing to do says a word."""
    in_flight: int = 64
    """Gradients that may be owed to a stage; what it would need to use older ones is forgotten."""
    max_staleness: int | None = None
    """Gradients that are more steps late than this teach nothing."""
    replay: int = 0
    """Messages that a stage keeps, to go on with while the stage below is out; 0: it waits."""
    lockstep: bool = False
    """Wait for each gradient before the next step. For comparisons: every way of running then gives the same
    numbers."""
    checkpoint_every: int = 100
    """Steps between a stage's checkpoints: what a crash can cost."""
    max_restarts: int = 3
    """How often in a row a stage is restarted without having come further than ever before."""
    hang_timeout: float = 10.0
    """A stage that makes no turn for so long has hung: it is killed and restarted. Its first step may take
    ``start_within``, a later one five times as long as the longest before it."""
    idle_exit_after: float = 30.0
    """How long a stage without a supervisor goes on when it has nothing to do."""
    threads: int = 1
    """Torch threads of each stage's process."""
    limit: int = 1 << 30
    """Bytes of one tensor that a stage takes in, at most."""

    def __post_init__(self) -> None:
        values = vars(self)
        check(values)
        if none := [name for name, value in values.items() if value is None and name != "max_staleness"]:
            raise ValueError(f"{none[0]}=None: it must be a number")
        if not isinstance(self.lockstep, bool):
            raise ValueError(f"lockstep={self.lockstep!r}: it must be True or False")
