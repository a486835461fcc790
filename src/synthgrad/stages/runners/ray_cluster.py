"""An actor per stage on a Ray cluster: Ray places them and restarts their processes; tensors go over ZeroMQ.

A restarted process of an actor knows nothing of its stage. The supervisor asks all actors for their status several
times a second. It lets a new process run from the stage's checkpoint, and sends its address to the neighbours.
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
from synthgrad.stages.counters import REPORT_FIELDS
from synthgrad.stages.outcome import StageEvent
from synthgrad.stages.runners.plan import Plan, new_run_id
from synthgrad.stages.runners.processes import Supervisor
from synthgrad.stages.runners.ray_actor import Outgoing, Report, StageActor
from synthgrad.stages.runners.run_folder import temporary_folder
from synthgrad.stages.runners.supervised import SupervisedStage

try:
    import ray
    from ray.exceptions import ActorDiedError, RayActorError, RayError
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("stages on Ray need it: pip install 'synthgrad[ray]'", name=error.name) from error


class Cluster(Supervisor):
    """Runs the stages on a Ray cluster. See ``launch``.

    If this process is connected to a Ray cluster already, that one is used.

    Args:
        address: of the cluster; None starts one on this machine, for this launch only.
        hosts: machines of the cluster; the stages are placed on them in turn.
        settings: the arguments of ``Supervisor``.

    Raises:
        ValueError: when it runs, if there is no cluster at the address, if it has several machines and there is no
            folder, or if it lacks one of the hosts.
    """

    check_every = 0.2  # each check is a call to every actor

    def __init__(self, address: str | None, hosts: Sequence[str], *settings: Any):
        super().__init__(*settings)
        self.address, self.hosts = address, hosts

    def make_stages(self, folder: Path, stack: ExitStack) -> Sequence[SupervisedStage]:
        """Make the stages, without starting their actors."""
        stack.enter_context(_connected(self.stages, self.address))
        machines = sorted(node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"])
        if self.folder is None and len(machines) > 1:
            raise ValueError(f"the cluster has {len(machines)} machines: give a folder= that all of them share")
        if missing := sorted({*self.hosts} - {*machines}):
            raise ValueError(f"hosts={missing[0]}: the cluster has {', '.join(machines)}")
        plan = Plan(self.build, self.stages, self.steps, self.policy, folder, new_run_id(), keys=Keys.generate())
        addresses: dict[int, Report] = {}
        hosts = [self.hosts[k % len(self.hosts)] if self.hosts else None for k in range(self.stages)]
        return [_ActorStage(plan, k, addresses, host) for k, host in enumerate(hosts)]


class _ActorStage(SupervisedStage):
    """A stage in an actor.

    Args:
        plan: of the run.
        k: the stage.
        addresses: for each stage, the report of its latest process that can be asked to run; all stages share it.
        host: the machine that it must be on.
    """

    def __init__(self, plan: Plan, k: int, addresses: dict[int, Report], host: str | None):
        super().__init__(plan, k)
        self.addresses, self.host = addresses, host
        self.actor: Any = None
        self.status_call: Any = None
        self.run_call: Any = None
        self.actor_dead = True  # or not started yet
        self.report: Report | None = None  # the latest since the last start
        self.killed_process = self.error = ""

    def spawn(self) -> None:
        if self.actor_dead:
            # A small share of a CPU: Ray then picks a machine with CPUs, and a busy cluster still takes the actor.
            limits = {"num_cpus": 0.01, "max_restarts": -1, "max_task_retries": 0, "max_concurrency": 2}
            place = {"resources": {f"node:{self.host}": 0.001}} if self.host else {"scheduling_strategy": "SPREAD"}
            name = f"stage {self.k} of {self.plan.run.hex()}, {self.generation}"
            actor: Any = ray.remote(StageActor)
            actor = actor.options(name=name, namespace="synthgrad", lifetime="detached", **limits, **place)
            self.actor, self.actor_dead = actor.remote(self.plan, self.k, own_address, end_actor), False
        self.status_call = self.run_call = self.report = None

    def check(self, at: float) -> None:
        self._receive_report()
        super().check(at)
        outgoing = self._outgoing()
        if self.status_call is None:
            self.status_call = self.actor.status.remote(outgoing)
        if self.report is None or self.run_call is not None:
            return
        if self.report.generation:  # an earlier process, which has failed, or whose result Ray has lost
            self.kill()
        elif outgoing is not None:
            self.run_call = self.actor.run.remote(self.generation, outgoing)

    def _receive_report(self) -> None:
        """Take the actor's report, if it has come."""
        if not _ready(self.status_call):
            return
        try:
            self._take(ray.get(self.status_call))
        except ActorDiedError as error:
            self.actor_dead, self.error = True, str(error)
        except RayError:
            pass  # its process is being restarted
        self.status_call = None

    def _take(self, report: Report) -> None:
        self.report = report
        if report.generation == 0:
            self.addresses[self.k] = report
        if report.numbers:
            numbers = {**report.numbers, "turned": time.monotonic() - report.numbers["turned"]}
            self.numbers = [float(numbers[name]) for name in REPORT_FIELDS]

    def _outgoing(self) -> Outgoing | None:
        """Where the neighbours listen; None until all their addresses are known."""
        below, above = self.addresses.get(self.k - 1), self.addresses.get(self.k + 1)
        if (below is None and self.k > 0) or (above is None and self.k < self.plan.stages - 1):
            return None
        return Outgoing(below and below.gradients, above and above.messages)

    def cause_of_death(self) -> str | None:
        if self.actor_dead:
            return "its actor died for good"
        if not _ready(self.run_call):
            return None
        try:
            answer: Any = ray.get(self.run_call)
        except RayError as error:
            self.error = str(error)
            return "its process or machine died" if isinstance(error, RayActorError) else "it could not be run"
        self.error = answer
        return self.error.strip().rpartition("\n")[2] or "it stopped by itself"

    def kill(self) -> None:
        self.error = ""
        if self.report is not None and self.report.process_id != self.killed_process:
            self.killed_process = self.report.process_id
            ray.kill(self.actor, no_restart=False)

    def traceback(self) -> str:
        return self.error

    def stop(self) -> None:
        if self.run_call is not None:
            self.actor.stop.remote()

    def wait(self, seconds: float) -> bool:
        return self.actor is None or self.run_call is None or bool(ray.wait([self.run_call], timeout=seconds)[0])

    def end(self) -> None:
        if self.actor is None:
            return
        if self.run_call is not None:
            with suppress(RayError):
                self._take(ray.get(self.actor.status.remote(), timeout=1))
        ray.kill(self.actor)

    def events(self) -> list[StageEvent]:
        """Its timeline, on this machine's clock if the machines agree on the time of day."""
        ahead = self.report.clock_offset - (time.time() - time.monotonic()) if self.report else 0.0
        return [replace(event, start=event.start + ahead, end=event.end + ahead) for event in super().events()]

    @property
    def pid(self) -> int | None:
        return self.report and self.report.pid


def own_address() -> str:
    """This machine's address on the cluster."""
    return ray.util.get_node_ip_address()


def end_actor() -> None:
    """End for good the actor in which this is called."""
    ray.kill(ray.get_runtime_context().current_actor)


def _ready(answer: Any) -> bool:
    return answer is not None and bool(ray.wait([answer], timeout=0)[0])


@contextmanager
def _connected(stages: int, address: str | None) -> Iterator[None]:
    """Start a Ray cluster for this launch alone, or connect to the one at an address, which stays as it is."""
    if ray.is_initialized():
        there = ray.get_runtime_context().gcs_address
        if address not in (None, "auto", there):
            raise ValueError(f"address={address}: this process is connected to the Ray at {there}; end that first")
        yield
        return
    with ExitStack() as stack:
        how: dict[str, Any] = {"address": address}
        if address is None:
            # In a private folder: Ray's own may be read by all users. Paths of sockets may have 107 characters.
            own = str(stack.enter_context(temporary_folder()) / "ray")
            how = {"address": "local", "_temp_dir": own if len(own) < 40 else None, "num_cpus": stages}
            # Its store holds only reports, so it may be small; its processes get the usual priority.
            how |= {"object_store_memory": 100 << 20, "_system_config": {"worker_niceness": 0}}
            how["include_dashboard"] = False
        elif address != "auto":
            _check_address(address)
        handler = signal.getsignal(signal.SIGTERM)
        stack.callback(ray.shutdown)
        try:
            ray.init(**how, log_to_driver=False, logging_level=logging.ERROR)
        except ConnectionError as error:
            raise ValueError(f"address={address}: there is no Ray ({error})") from None
        finally:
            # Ray's own handler would end this process without stopping the stages.
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, handler)
        yield


def _check_address(address: str) -> None:
    """Check that a port answers at the address: Ray itself would try for minutes, and ignore Ctrl-C."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdigit():
        raise ValueError(f"address={address}: wanted HOST:PORT of a Ray cluster with this machine, or auto")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise ValueError(f"address={address}: there is no Ray ({error})") from None
