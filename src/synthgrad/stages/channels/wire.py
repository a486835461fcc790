"""Encodes a packet as bytes: a fixed header and the tensors' raw memory. Nothing is unpickled from a socket.

The header is big-endian, the tensors' values are little-endian.
"""

from __future__ import annotations

import ctypes
import math
import struct
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from synthgrad.stages.channels.packet import Packet, PacketKind

VERSION = 1
TENSORS, DIMENSIONS = 2, 6
"""The most tensors of a packet, and the most dimensions of a tensor."""
DTYPES: tuple[torch.dtype, ...] = (
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
    torch.int16,
    torch.int8,
    torch.uint16,
    torch.uint32,
    torch.uint64,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
)
"""A dtype's place is its number on the wire, so new ones go to the end."""
# Magic, version, run, kind, ended, sender, generation, echo, step, ack, number of tensors.
_HEAD = struct.Struct("!4sB16sBBHIIqqB")
# For each tensor: dtype, number of dimensions, the dimensions.
_TENSOR = struct.Struct(f"!BB{DIMENSIONS}I")
_SIZE = 2**32 - 1  # the largest size of a dimension
_MAGIC = b"SGRD"
HEADER = _HEAD.size + TENSORS * _TENSOR.size
"""The length of every header, in bytes."""


class Refused(ValueError):
    """The bytes are no packet of this run; the text is the reason, in one word."""


def encode(packet: Packet, run: bytes) -> list[Any]:
    """Encode a packet as frames: its header, and one per tensor, which shares the tensor's memory.

    Args:
        packet: the packet; its tensors must not be written to until they are sent.
        run: 16 bytes that identify the run.

    Raises:
        ValueError: if the wire has no code for a tensor's dtype or layout, a tensor has too many dimensions, or a
            number is too large.
        RuntimeError: if this machine is big-endian.
    """
    _little_endian()
    if len(packet.tensors) > TENSORS or not all(map(_known, packet.tensors)):
        came = ", ".join(f"{t.dtype} {tuple(t.shape)}" for t in packet.tensors)
        raise ValueError(
            f"cannot send {came}: wanted at most {TENSORS} dense tensors of up to {DIMENSIONS} dimensions, each of "
            f"size up to {_SIZE}, with a dtype of {DTYPES}"
        )
    tensors = [t.detach().cpu().resolve_neg().contiguous() for t in packet.tensors]
    head = (packet.kind, packet.ended, packet.stage, packet.generation, packet.echo, packet.step, packet.ack)
    try:
        header = _HEAD.pack(_MAGIC, VERSION, run, *head, len(tensors))
    except struct.error as error:
        raise ValueError(
            f"cannot send {packet.kind.name} of stage {packet.stage}, generation {packet.generation}, echo "
            f"{packet.echo}, step {packet.step}, ack {packet.ack}: {error}; a stage has 16 bits, a generation 32"
        ) from None
    for t in tensors:
        header += _TENSOR.pack(DTYPES.index(t.dtype), t.dim(), *t.shape, *[0] * (DIMENSIONS - t.dim()))
    return [header.ljust(HEADER, b"\0"), *map(_memory, tensors)]


def decode(frames: Sequence[Any], run: bytes, limit: int) -> Packet:
    """Decode frames to a packet.

    Args:
        frames: bytes, or objects with their buffer interface.
        run: 16 bytes that identify the run.
        limit: the most bytes of one tensor.

    Raises:
        Refused: if they are no packet of this run.
        RuntimeError: if this machine is big-endian.
    """
    _little_endian()
    if not frames or len(frames[0]) != HEADER:
        raise Refused("header")
    magic, version, sent_by, kind, ended, *head, count = _HEAD.unpack_from(frames[0])
    stage, generation, echo, step, ack = head
    if magic != _MAGIC:
        raise Refused("magic")
    if version != VERSION:
        raise Refused("version")
    if sent_by != run:
        raise Refused("run")
    if kind not in (*PacketKind,) or ended > 1:
        raise Refused("kind")
    if count > TENSORS or len(frames) != 1 + count:
        raise Refused("frames")
    tensors = tuple(_tensor(frames[0], i, frames[1 + i], limit) for i in range(count))
    return Packet(PacketKind(kind), stage, generation, step, echo, ack, bool(ended), tensors)


def _tensor(header: Any, i: int, content: Any, limit: int) -> Tensor:
    number, dimensions, *shape = _TENSOR.unpack_from(header, _HEAD.size + i * _TENSOR.size)
    if number >= len(DTYPES):
        raise Refused("dtype")
    if dimensions > DIMENSIONS or any(shape[dimensions:]):
        raise Refused("shape")
    dtype, shape = DTYPES[number], shape[:dimensions]
    # Python's integers never overflow. Torch's strides do, even those of an empty tensor: hence ``least``.
    least = math.prod(max(n, 1) for n in shape) * dtype.itemsize
    if math.prod(shape) * dtype.itemsize != len(content) or least > limit:
        raise Refused("size")
    if len(content) == 0:
        return torch.empty(shape, dtype=dtype)
    memory = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    if dtype is torch.bool and (memory > 1).any():
        raise Refused("bool")
    return memory.view(dtype).view(shape)


def _known(t: Tensor) -> bool:
    """Whether the wire has a code for the tensor."""
    small = t.dim() <= DIMENSIONS and all(size <= _SIZE for size in t.shape)
    return small and t.dtype in DTYPES and t.layout is torch.strided and not t.is_meta


def _little_endian() -> None:
    if sys.byteorder != "little":
        raise RuntimeError(f"this machine's numbers are {sys.byteorder}-endian; stages need little-endian machines")


def _memory(t: Tensor) -> Any:
    """The tensor's bytes, not copied; they keep the tensor alive."""
    memory: Any = (ctypes.c_char * (t.numel() * t.element_size())).from_address(t.data_ptr())
    memory.tensor = t
    return memory
