"""Pipeline schedules to compare with: GPipe, 1F1B and ZBV of ``torch.distributed.pipelining``."""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess, parent_process
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthgrad.stages.outcome import StageEvent

SCHEDULES = {"gpipe": "ScheduleGPipe", "1f1b": "Schedule1F1B", "zbv": "ScheduleZBVZeroBubble"}
SHOWN_STEPS = 3


@dataclass(frozen=True)
class PipelineEvent(StageEvent):
    """Something that a rank did: forward, backward, update or wait.

    The time between the other events is a wait: for another rank, for messages, or for torch's own bookkeeping. It
    belongs to the stage that runs next.
    """

    stage: int
    """Counted from 0; a rank of ZBV has two."""


@dataclass
class Measured:
    """The measurements of one pipeline."""

    samples_per_second: float
    """Over the timed steps, from one barrier to another."""
    events: list[list[PipelineEvent]]
    """Each rank's events in the last ``SHOWN_STEPS`` steps, in order."""
    losses: list[float]
    """Each timed step's loss before its update, the mean over its microbatches."""


@dataclass(frozen=True)
class Pipeline:
    """A pipeline, trained on one random batch with one process and one thread per rank.

    Every rank updates its parameters by Adam after every step.

    Raises:
        ValueError: if there is no such schedule, or the sizes are impossible.
    """

    schedule: str
    """gpipe, 1f1b or zbv, where rank k holds modules k and 2·stages - 1 - k."""
    build: Callable[[int, int], nn.Module]
    """Makes module k of n, from (batch, features) to (batch, features); n is ``stages``, or twice that for ZBV. It is
    pickled, so it must be a function of a module or a ``functools.partial`` of one."""
    stages: int
    """Ranks."""
    microbatches: int
    """Parts of a step's batch; at least ``stages`` for 1F1B."""
    batch: int
    """Samples per step, a multiple of ``microbatches``."""
    width: int
    """Features of the first module's input."""
    classes: int | None
    """Classes of a cross-entropy; None: squared error against a target of the input's shape."""
    steps: int
    """Timed steps."""
    warmup: int = 2
    """Steps before these, at least 1: torch finds the shapes of the messages in the first."""
    limit: float = 300.0
    """Seconds that ``measure`` may take."""

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise ValueError(f"unknown schedule {self.schedule!r}; there are: {', '.join(SCHEDULES)}")
        names = ("stages", "steps", "warmup", "microbatches", "batch")
        if min(getattr(self, name) for name in names) < 1 or self.batch % self.microbatches:
            sizes = ", ".join(f"{name}={getattr(self, name)}" for name in names)
            raise ValueError(f"{sizes}: they must be at least 1, and the last a multiple of the one before")

    def measure(self) -> Measured:
        """Train and time the steps.

        No rank's process outlives the call; a server that starts them quickly stays for the next call.

        Raises:
            RuntimeError: if a rank fails; the message ends with that rank's own traceback.
            TimeoutError: if the ranks have not ended within ``limit``.
        """
        context: Any = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["torch.distributed.pipelining"])  # each rank would need seconds for it
        ranks: list[tuple[Connection, BaseProcess]] = []
        with TemporaryDirectory(prefix="synthgrad-", ignore_cleanup_errors=True) as folder, ExitStack() as stack:
            for rank in range(self.stages):
                pipe, far_end = map(stack.enter_context, context.Pipe(duplex=False))
                process = context.Process(target=_rank, args=(rank, self, folder, far_end), daemon=True)
                stack.callback(_end, process)
                process.start()
                far_end.close()
                ranks.append((pipe, process))
            results = _gathered(ranks, self.limit)
        began, ended, events, losses = zip(*results, strict=True)
        return Measured(self.steps * self.batch / (max(ended) - min(began)), list(events), max(losses, key=len))


def _end(process: BaseProcess) -> None:
    if process.is_alive():
        process.kill()
        process.join()
    process.close()


def _gathered(ranks: Sequence[tuple[Connection, BaseProcess]], limit: float) -> list[Any]:
    """Wait for the reports of all ranks; raise the error of the first one that fails."""
    deadline, reports, of = time.monotonic() + limit, {}, len(ranks)
    while missing := [rank for rank in range(of) if rank not in reports]:
        ready = wait([ranks[rank][0] for rank in missing], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise TimeoutError(f"ranks {missing} of {of} had not ended after {limit:g} s; limit= allows more")
        for rank, (pipe, process) in enumerate(ranks):
            if pipe not in ready:
                continue
            try:
                reports[rank] = pipe.recv()
            except EOFError:
                process.join()
                raise RuntimeError(f"rank {rank} of {of} died with exit code {process.exitcode}") from None
        for rank, report in reports.items():
            if isinstance(report, str):
                raise RuntimeError(f"rank {rank} of {of} failed:\n{report}")
    return [reports[rank] for rank in range(of)]


def _rank(rank: int, job: Pipeline, folder: str, out: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets Ctrl-C, too, and ends this process
    threading.Thread(target=_end_with_parent, args=(folder,), daemon=True).start()
    try:
        out.send(_train(rank, job, folder))
    except Exception:
        out.send(traceback.format_exc())
        threading.Event().wait()  # until it is killed: if it ended now, the other ranks would fail, too


def _end_with_parent(folder: str) -> None:
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def _train(rank: int, job: Pipeline, folder: str) -> tuple[float, float, list[PipelineEvent], list[float]]:
    """Train; returns when the timed steps began and ended, this rank's events, and the losses in the last rank."""
    import torch.distributed as dist
    from torch.distributed import pipelining

    torch.set_num_threads(1)
    # The parent reports errors; torch would print the whole schedule, too.
    logging.getLogger("torch.distributed.pipelining").setLevel(logging.CRITICAL)
    # Without this, gloo looks up this machine's name, and its sockets are open to other machines.
    os.environ["GLOO_SOCKET_IFNAME"] = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    store, limit = f"file://{folder}/store", timedelta(seconds=job.limit)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=job.stages, timeout=limit)

    log = _Log()
    held = [rank, 2 * job.stages - 1 - rank] if job.schedule == "zbv" else [rank]
    of = job.stages * len(held)
    parts, parameters = [], []
    for k in held:
        torch.manual_seed(k)
        module = job.build(k, of)
        parameters += module.parameters()
        parts.append(pipelining.PipelineStage(module, k, of, torch.device("cpu")))
        # Hooks on the module would change the graph that ZBV splits.
        for name in ("forward_one_chunk", "backward_one_chunk", "backward_weight_one_chunk"):
            setattr(parts[-1], name, log.timed(getattr(parts[-1], name), k, name.split("_")[0]))
    criterion = log.timed(F.mse_loss if job.classes is None else F.cross_entropy, of - 1, "forward")
    kind = getattr(pipelining, SCHEDULES[job.schedule])
    schedule = kind(parts if len(held) > 1 else parts[0], job.microbatches, loss_fn=criterion)
    optimizer = torch.optim.Adam(parameters, lr=1e-3)
    update = log.timed(optimizer.step, rank, "update")
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(job.batch, job.width, generator=generator)
    if job.classes is None:
        y = torch.randn(job.batch, job.width, generator=generator)
    else:
        y = torch.randint(job.classes, (job.batch,), generator=generator)
    data, target = (x,) if 0 in held else (), y if of - 1 in held else None
    began, losses = 0.0, list[float]()
    for step in range(-job.warmup, job.steps):
        if step == 0:
            dist.barrier()
            began = log.mark = time.monotonic()
        log.step = step
        each: list[Tensor] = []
        schedule.step(*data, target=target, losses=each)
        update()
        optimizer.zero_grad()
        losses += [torch.stack(each).mean().item()] if each else []
    dist.barrier()
    ended = time.monotonic()
    dist.destroy_process_group()
    shown = [e for e in log.events if e.step >= max(0, job.steps - SHOWN_STEPS)]
    return began, ended, shown, losses[job.warmup :]


class _Log:
    """A rank's events."""

    def __init__(self) -> None:
        self.events: list[PipelineEvent] = []
        self.step = 0
        self.mark = time.monotonic()

    def timed(self, call: Callable[..., Any], stage: int, kind: str) -> Callable[..., Any]:
        """The same function; each call adds an event, and one for the wait before it."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.monotonic()
            result = call(*args, **kwargs)
            ended = time.monotonic()
            self.events.append(PipelineEvent("wait", self.mark, began, self.step, stage))
            self.events.append(PipelineEvent(kind, began, ended, self.step, stage))
            self.mark = ended
            return result

        return timed
