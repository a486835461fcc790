"""The peers of stages that do not wait: GPipe, 1F1B and ZBV of ``torch.distributed.pipelining``."""

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
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess, parent_process
from tempfile import mkdtemp
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Event = dict[str, Any]
"""``stage`` (from 0), ``kind`` (forward, backward, update or wait), ``start`` and ``end`` in seconds of
``time.monotonic``, which all processes of a machine share, and ``step`` (from 0). A wait is what lies between the
others: for a peer, for messages, or for torch's own bookkeeping. It belongs to the stage that runs next."""

SCHEDULES = {"gpipe": "ScheduleGPipe", "1f1b": "Schedule1F1B", "zbv": "ScheduleZBVZeroBubble"}
SHOWN_STEPS = 3


@dataclass
class Measured:
    """What came out of one pipeline."""

    samples_per_second: float
    """Over the timed steps, from a barrier to a barrier."""
    events: list[list[Event]]
    """Each rank's, in order, of the last ``SHOWN_STEPS`` steps."""
    losses: list[float]
    """Of every timed step, before its update, mean over its microbatches."""


@dataclass(frozen=True)
class _Job:
    schedule: str
    build: Callable[[int, int], nn.Module]
    stages: int
    microbatches: int
    batch: int
    width: int
    classes: int | None
    steps: int
    warmup: int
    limit: float
    folder: str


def bench_pipeline(
    schedule: str,
    build: Callable[[int, int], nn.Module],
    stages: int,
    microbatches: int,
    batch: int,
    width: int,
    classes: int | None,
    steps: int,
    warmup: int = 2,
    limit: float = 300.0,
) -> Measured:
    """Train a pipeline on one random batch, one process and one thread per rank, and time its steps.

    Every rank updates its parameters by Adam after every step. No rank's process is left behind, however it ends;
    a server that starts them quickly stays for the next call, and ends with the program.

    Args:
        schedule: "gpipe", "1f1b" or "zbv", where rank k holds modules k and 2·stages - 1 - k.
        build: makes module k of n, from (batch, features) to (batch, features); n is ``stages``, or twice that for
            ZBV. It is pickled, so it must be a function of a module or a ``functools.partial`` of one.
        stages: ranks.
        microbatches: how many a step's batch is split into; at least ``stages`` for 1F1B.
        batch: samples per step, a multiple of ``microbatches``.
        width: features of the first module's input.
        classes: cross-entropy over that many; or None: squared error against a target of the input's shape.
        steps: how many are timed.
        warmup: steps before that, at least 1: torch finds the shapes of the messages in the first.
        limit: seconds after which it is given up.

    Returns:
        Throughput, the last steps' events, losses.

    Raises:
        ValueError: a schedule or sizes that cannot be.
        RuntimeError: a rank failed; the message has that rank's own traceback.
        TimeoutError: not ended within ``limit``.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"unknown schedule {schedule!r}; there are: {', '.join(SCHEDULES)}")
    if min(stages, microbatches, batch, steps, warmup) < 1 or batch % microbatches:
        sizes = f"{stages=}, {steps=}, {warmup=}, {microbatches=} and {batch=}"
        raise ValueError(f"{sizes} must be at least 1, and the last a multiple of the one before")
    folder = mkdtemp(prefix="synthgrad-")
    job = _Job(schedule, build, stages, microbatches, batch, width, classes, steps, warmup, limit, folder)
    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch.distributed.pipelining"])  # each rank would need seconds for it
    processes: list[BaseProcess] = []
    pipes: list[Connection] = []
    try:
        for rank in range(stages):
            pipe, far_end = context.Pipe(duplex=False)
            pipes.append(pipe)
            with far_end:
                processes.append(context.Process(target=_rank, args=(rank, job, far_end), daemon=True))
                processes[-1].start()
        results = _gathered(pipes, processes, limit)
    finally:
        for process in processes:
            if process.pid is not None and process.is_alive():
                process.kill()
                process.join()
            process.close()
        for pipe in pipes:
            pipe.close()
        shutil.rmtree(folder, ignore_errors=True)
    began, ended, events, losses = zip(*results, strict=True)
    return Measured(steps * batch / (max(ended) - min(began)), list(events), max(losses, key=len))


def _gathered(pipes: Sequence[Connection], processes: Sequence[BaseProcess], limit: float) -> list[Any]:
    """What every rank reports, or the error of the first that fails."""
    deadline, reports, of = time.monotonic() + limit, {}, len(pipes)
    while missing := [rank for rank in range(of) if rank not in reports]:
        ready = wait([pipes[rank] for rank in missing], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise TimeoutError(f"ranks {missing} of {of} had not ended after {limit:g} s; limit= allows more")
        for rank in [rank for rank in missing if pipes[rank] in ready]:
            try:
                reports[rank] = pipes[rank].recv()
            except EOFError:
                processes[rank].join()
                raise RuntimeError(f"rank {rank} of {of} died with exit code {processes[rank].exitcode}") from None
        for rank, report in reports.items():
            if isinstance(report, str):
                raise RuntimeError(f"rank {rank} of {of} failed:\n{report}")
    return [reports[rank] for rank in range(of)]


def _rank(rank: int, job: _Job, out: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, too, which ends this process
    threading.Thread(target=_end_with_parent, args=(job.folder,), daemon=True).start()
    try:
        out.send(_trained(rank, job))
    except Exception:
        out.send(traceback.format_exc())
        threading.Event().wait()  # until it is killed: if it ended now, its peers would fail, too


def _end_with_parent(folder: str) -> None:
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def _trained(rank: int, job: _Job) -> tuple[float, float, list[Event], list[float]]:
    """When the timed steps began and ended, what this rank did, and the losses if it has the last stage."""
    import torch.distributed as dist
    from torch.distributed import pipelining

    torch.set_num_threads(1)
    # The error comes back; torch would print the whole schedule beside it.
    logging.getLogger("torch.distributed.pipelining").setLevel(logging.CRITICAL)
    # Else gloo asks for the address of this machine's name, and the pipeline's sockets are open to others.
    os.environ["GLOO_SOCKET_IFNAME"] = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    meet, silence_timeout = f"file://{job.folder}/store", timedelta(seconds=job.limit)
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=job.stages, timeout=silence_timeout)

    log = _Log()
    held = [rank, 2 * job.stages - 1 - rank] if job.schedule == "zbv" else [rank]
    of = job.stages * len(held)
    parts, parameters = [], []
    for k in held:
        torch.manual_seed(k)
        module = job.build(k, of)
        parameters += module.parameters()
        parts.append(log.watched(pipelining.PipelineStage(module, k, of, torch.device("cpu"))))
    criterion = log.timed(F.mse_loss if job.classes is None else F.cross_entropy, of - 1, "forward")
    kind = getattr(pipelining, SCHEDULES[job.schedule])
    schedule = kind(parts if len(held) > 1 else parts[0], job.microbatches, loss_fn=criterion)
    optimizer = torch.optim.Adam(parameters, lr=1e-3)
    update = log.timed(optimizer.step, rank, "update")
    x, y = _batch(job)
    data = (x,) if 0 in held else ()
    target = y if of - 1 in held else None
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
    shown = [e for e in log.events if e["step"] >= max(0, job.steps - SHOWN_STEPS)]
    return began, ended, shown, losses[job.warmup :]


def _batch(job: _Job) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(job.batch, job.width, generator=generator)
    if job.classes is None:
        return x, torch.randn(job.batch, job.width, generator=generator)
    return x, torch.randint(job.classes, (job.batch,), generator=generator)


class _Log:
    """What a rank did when."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.step = 0
        self.mark = time.monotonic()

    def timed(self, call: Callable[..., Any], stage: int, kind: str) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.monotonic()
            result = call(*args, **kwargs)
            ended = time.monotonic()
            for what, start, end in (("wait", self.mark, began), (kind, began, ended)):
                event = {"stage": stage, "kind": what, "start": start, "end": end, "step": self.step}
                self.events.append(event)
            self.mark = ended
            return result

        return timed

    def watched(self, stage: Any) -> Any:
        """The stage, with its passes timed; hooks on the module would change the graph that zero bubble splits."""
        for name in ("forward_one_chunk", "backward_one_chunk", "backward_weight_one_chunk"):
            setattr(stage, name, self.timed(getattr(stage, name), stage.stage_index, name.split("_")[0]))
        return stage
