"""An actor per stage on a Ray cluster: Ray places them and restarts their processes; tensors go over ZeroMQ.

What an actor's process knows of its stage dies with it. So the driver, which asks every actor several times a
second how it is, tells a new process to run, from the stage's checkpoint, and the neighbours where it listens now.
"""

from __future__ import annotations

import logging
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from synthgrad.stages.channels.zeromq import Keys
from synthgrad.stages.counters import NUMBERS
from synthgrad.stages.outcome import StageEvent
from synthgrad.stages.runners.processes import Supervisor, temporary
from synthgrad.stages.runners.ray_actor import Outgoing, Report, StageActor
from synthgrad.stages.runners.supervised import Watched
from synthgrad.stages.runners.worker import Plan, fresh_run

try:
    import ray
    from ray.exceptions import ActorDiedError, RayActorError, RayError
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("stages on Ray need it: pip install 'synthgrad[ray]'", name=error.name) from error


class Cluster(Supervisor):
    """Runs the stages on a Ray cluster. See ``launch``.

    A process that is connected to a Ray already uses that one.

    Args:
        address: of the cluster; None is one on this machine, for this launch only.
        hosts: machines of it for one stage after the other, in turn.
        of_all: a supervisor's own.

    Raises:
        ValueError: when it runs, if there is no cluster at the address, if it has several machines and there is no
            folder, or if it has no such host.
    """

    look_every = 0.2  # each look is a call to every actor

    def __init__(self, address: str | None, hosts: Sequence[str], *of_all: Any):
        super().__init__(*of_all)
        self.address, self.hosts = address, hosts

    def placed(self, folder: Path, stack: ExitStack) -> Sequence[Watched]:
        """An actor for each stage, not started yet."""
        stack.enter_context(_connected(self.stages, self.address))
        machines = sorted(node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"])
        if self.folder is None and len(machines) > 1:
            raise ValueError(f"the cluster has {len(machines)} machines: give a folder= that all of them share")
        if missing := sorted({*self.hosts} - {*machines}):
            raise ValueError(f"hosts={missing[0]}: the cluster has {', '.join(machines)}")
        plan = Plan(self.build, self.stages, self.steps, self.policy, folder, fresh_run(), keys=Keys.made())
        reports: dict[int, Report] = {}
        hosts = [self.hosts[k % len(self.hosts)] if self.hosts else None for k in range(self.stages)]
        return [_Placed(plan, k, reports, host) for k, host in enumerate(hosts)]


class _Placed(Watched):
    """A stage's actor.

    Args:
        plan: of the run.
        k: the stage.
        listening: of every stage the last report from which it could be told to run; shared by all.
        host: where it must be.
    """

    def __init__(self, plan: Plan, k: int, listening: dict[int, Report], host: str | None):
        super().__init__(plan, k)
        self.listening, self.host = listening, host
        self.actor: Any = None
        self.gone = True
        """Whether there is no actor, or it has died for good."""
        self.asked: Any = None
        self.running: Any = None
        self.report: Report | None = None
        """Asked for since the last start."""
        self.killed = self.error = ""

    def begin(self) -> None:
        if self.gone:
            # A little of a CPU, so that it goes where there are some, and a busy cluster takes it nonetheless.
            options: dict[str, Any] = {
                "name": f"stage {self.k} of {self.plan.run.hex()}, {self.generation}",
                "namespace": "synthgrad",
                "lifetime": "detached",
                "num_cpus": 0.01,
                **({"resources": {f"node:{self.host}": 0.001}} if self.host else {"scheduling_strategy": "SPREAD"}),
                "max_restarts": -1,
                "max_task_retries": 0,
                "max_concurrency": 2,
            }
            actor: Any = ray.remote(StageActor)
            self.actor, self.gone = actor.options(**options).remote(self.plan, self.k, host, leave), False
        self.asked = self.running = self.report = None

    def look(self, at: float) -> None:
        self._hear()
        super().look(at)
        outgoing = self._outgoing()
        if self.asked is None:
            self.asked = self.actor.status.remote(outgoing)
        if self.report is None or self.running is not None:
            return
        if self.report.generation:  # the last life, which has failed, or is out of Ray's sight
            self.kill()
        elif outgoing is not None:
            self.running = self.actor.run.remote(self.generation, outgoing)

    def _hear(self) -> None:
        """Take in the actor's answer, if it has come."""
        if not _ready(self.asked):
            return
        try:
            self._take(ray.get(self.asked))
        except ActorDiedError as error:
            self.gone, self.error = True, str(error)
        except RayError:
            pass  # being restarted
        self.asked = None

    def _take(self, report: Report) -> None:
        self.report = report
        if report.generation == 0:
            self.listening[self.k] = report
        if report.counters:
            told = {**report.counters, "turned": time.monotonic() - report.counters["turned"]}
            self.numbers = [float(told[name]) for name in NUMBERS]

    def _outgoing(self) -> Outgoing | None:
        """Where the neighbours listen, if that is known of all."""
        below, above = self.listening.get(self.k - 1), self.listening.get(self.k + 1)
        if (below is None and self.k > 0) or (above is None and self.k < self.plan.stages - 1):
            return None
        return Outgoing(below and below.gradients, above and above.messages)

    def dead(self) -> str | None:
        if self.gone:
            return "its actor died for good"
        if not _ready(self.running):
            return None
        try:
            answer: Any = ray.get(self.running)
        except RayError as error:
            self.error = str(error)
            return "its process or machine died" if isinstance(error, RayActorError) else "it could not be run"
        self.error = answer
        return self.error.strip().rpartition("\n")[2] or "it stopped by itself"

    def kill(self) -> None:
        self.error = ""
        if self.report is not None and self.report.life != self.killed:
            self.killed = self.report.life
            ray.kill(self.actor, no_restart=False)

    def last_words(self) -> str:
        return self.error

    def stop(self) -> None:
        if self.running is not None:
            self.actor.stop.remote()

    def wait(self, seconds: float) -> bool:
        return self.actor is None or self.running is None or bool(ray.wait([self.running], timeout=seconds)[0])

    def end(self) -> None:
        if self.actor is None:
            return
        if self.running is not None:
            with suppress(RayError):
                self._take(ray.get(self.actor.status.remote(), timeout=1))
        ray.kill(self.actor)

    def events(self) -> list[StageEvent]:
        """Its timeline, on this machine's clock as far as the machines agree on the time of day."""
        ahead = self.report.clock - (time.time() - time.monotonic()) if self.report else 0.0
        return [replace(event, start=event.start + ahead, end=event.end + ahead) for event in super().events()]

    @property
    def pid(self) -> int | None:
        return self.report and self.report.pid


def host() -> str:
    """This machine's address on the cluster."""
    return ray.util.get_node_ip_address()


def leave() -> None:
    """End the actor that this is called in, for ever."""
    ray.kill(ray.get_runtime_context().current_actor)


def _ready(answer: Any) -> bool:
    return answer is not None and bool(ray.wait([answer], timeout=0)[0])


@contextmanager
def _connected(stages: int, address: str | None) -> Iterator[None]:
    """A Ray for this launch alone, or the one at an address, which is left as it is."""
    if ray.is_initialized():
        there = ray.get_runtime_context().gcs_address
        if address not in (None, "auto", there):
            raise ValueError(f"address={address}: this process is connected to the Ray at {there}; end that first")
        yield
        return
    with ExitStack() as stack:
        how: dict[str, Any] = {"address": address}
        if address is None:
            # Within ours, since it opens its own to all; its sockets' paths may have 107 characters.
            own = str(stack.enter_context(temporary()) / "ray")
            how = {"address": "local", "_temp_dir": own if len(own) < 40 else None, "num_cpus": stages}
            # Only reports go through its store; its processes are not to give way to all others.
            how |= {"include_dashboard": False, "object_store_memory": 100 << 20}
            how["_system_config"] = {"worker_niceness": 0}
        elif address != "auto":
            _reach(address)
        handler = signal.getsignal(signal.SIGTERM)
        stack.callback(ray.shutdown)
        try:
            ray.init(**how, log_to_driver=False, logging_level=logging.ERROR)
        except ConnectionError as error:
            raise ValueError(f"address={address}: there is no Ray ({error})") from None
        finally:
            # Ray's own handler would end this process without a word to the stages.
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, handler)
        yield


def _reach(address: str) -> None:
    """Ray itself tries for minutes, deaf to Ctrl-C."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdigit():
        raise ValueError(f"address={address}: wanted HOST:PORT of a Ray cluster that this machine is of, or auto")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise ValueError(f"address={address}: there is no Ray ({error})") from None
