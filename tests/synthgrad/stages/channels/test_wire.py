"""Every packet survives encoding and decoding; any other bytes are refused with a reason, and do no harm."""

import gc
import math
import struct
from dataclasses import astuple, replace

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from synthgrad.stages.channels import Packet, PacketKind
from synthgrad.stages.channels.wire import DIMENSIONS, DTYPES, HEADER, TENSORS, VERSION, Refused, decode, encode

RUN, LIMIT = b"0123456789abcdef", 1 << 20
REASONS = {"header", "magic", "version", "run", "kind", "frames", "dtype", "shape", "size", "bool"}
# Offsets in the header: magic 0, version 4, run 5, kind 21, ended 22, sender 23, generation 25, echo 29,
# step 33, ack 41, count 49; for each tensor dtype 0, dimensions 1, sizes 2 on.
KIND, ENDED, COUNT, FIRST = 21, 22, 49, 50


def sent(packet, run=RUN):
    return [bytes(frame) for frame in encode(packet, run)]


def back(packet):
    return decode(sent(packet), RUN, LIMIT)


def same(a, b):
    """Bit for bit, NaNs too."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return a.numel() == 0 or torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))


def patched(packet, at, content):
    """The packet's frames, with a part of the header overwritten."""
    header, *rest = sent(packet)
    return [header[:at] + content + header[at + len(content) :], *rest]


def shaped(*sizes):
    """A tensor's sizes as the header encodes them."""
    return struct.pack(f"!B{DIMENSIONS}I", len(sizes), *sizes, *[0] * (DIMENSIONS - len(sizes)))


MESSAGE = Packet(PacketKind.MESSAGE, 1, 2, 3, tensors=(torch.arange(6.0).view(2, 3), torch.tensor([1, 0])))


@st.composite
def packets(draw):
    """A packet's fields, and each tensor's dtype, sizes and bytes."""
    whole, wide = st.integers(0, 2**32 - 1), st.integers(-(2**63), 2**63 - 1)
    fields = draw(
        st.tuples(st.sampled_from(PacketKind), st.integers(0, 2**16 - 1), whole, wide, whole, wide, st.booleans())
    )
    contents = []
    for _ in range(draw(st.integers(0, TENSORS))):
        dtype, shape = draw(st.sampled_from(DTYPES)), draw(st.lists(st.integers(0, 3), max_size=DIMENSIONS))
        count = math.prod(shape) * dtype.itemsize
        byte = st.integers(0, 1) if dtype is torch.bool else st.integers(0, 255)
        contents.append((dtype, shape, draw(st.lists(byte, min_size=count, max_size=count))))
    return fields, contents


def made(drawn):
    fields, contents = drawn
    bytes_of = [torch.tensor(content, dtype=torch.uint8) for _, _, content in contents]
    tensors = (t.view(dtype).view(shape) for t, (dtype, shape, _) in zip(bytes_of, contents, strict=True))
    return Packet(*fields, tuple(tensors))


# --- round trips -------------------------------------------------------------------------------------------


@given(packets())
def test_round_trip(drawn):
    packet = made(drawn)
    came = back(packet)
    assert astuple(replace(came, tensors=())) == astuple(replace(packet, tensors=()))
    assert isinstance(came.kind, PacketKind)
    assert isinstance(came.ended, bool)
    assert len(came.tensors) == len(packet.tensors)
    assert all(map(same, came.tensors, packet.tensors))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (2, 3), (1, 2, 1, 3, 1, 2)])
def test_every_dtype_in_odd_shapes(dtype, shape):
    t = (torch.randn(shape) * 3).to(dtype)
    (came,) = back(Packet(PacketKind.MESSAGE, 0, 1, tensors=(t,))).tensors
    assert same(came, t)


@pytest.mark.parametrize(
    "view",
    [
        lambda t: t.t(),
        lambda t: t[::2, 1:3],
        lambda t: t[:1].expand(5, 4),
        lambda t: t.flip(0),
        lambda t: t[3],
        lambda t: t.requires_grad_() * 2,
        lambda t: t.view(1, 2, 2, 4).to(memory_format=torch.channels_last),
    ],
    ids=["transposed", "strided", "expanded", "flipped", "offset", "attached", "channels last"],
)
def test_any_view_is_sent_with_its_values(view):
    t = view(torch.arange(16.0).view(4, 4))
    (came,) = back(Packet(PacketKind.MESSAGE, 0, 1, tensors=(t,))).tensors
    assert torch.equal(came, t)
    assert not came.requires_grad
    assert came.is_contiguous()


def test_frames_share_the_tensors_memory_and_keep_it():
    t = torch.zeros(1000)
    frames = encode(Packet(PacketKind.MESSAGE, 0, 1, tensors=(t,)), RUN)
    t[7] = 1
    del t
    gc.collect()
    (came,) = decode([bytes(frame) for frame in frames], RUN, LIMIT).tensors
    assert came.nonzero().tolist() == [[7]]


def test_a_decoded_tensor_has_its_own_memory():
    header, content = encode(Packet(PacketKind.MESSAGE, 0, 1, tensors=(torch.zeros(3),)), RUN)
    buffer = bytearray(content)
    (came,) = decode([header, memoryview(buffer)], RUN, LIMIT).tensors
    buffer[:] = b"\xff" * len(buffer)
    assert torch.equal(came, torch.zeros(3))
    came += 1  # not read-only either
    assert torch.equal(came, torch.ones(3))


@pytest.mark.parametrize(
    "wrong",
    [(torch.zeros(2, dtype=torch.complex64),), (torch.zeros([1] * 7),), (torch.zeros(1),) * 3],
    ids=["dtype", "dimensions", "too many"],
)
def test_unsupported_tensors_are_not_sent(wrong):
    with pytest.raises(ValueError, match="cannot send torch"):
        encode(Packet(PacketKind.MESSAGE, 0, 1, tensors=wrong), RUN)


@pytest.mark.parametrize(
    "changes",
    [
        {"stage": 2**16},
        {"stage": -1},
        {"generation": 2**32},
        {"echo": 2**32},
        {"step": 2**63},
        {"ack": -(2**63) - 1},
    ],
    ids=str,
)
def test_numbers_that_the_header_cannot_hold_are_an_error(changes):
    with pytest.raises(ValueError, match=r"cannot send HEARTBEAT of stage .*a stage has 16 bits"):
        encode(replace(Packet(PacketKind.HEARTBEAT, 0, 1), **changes), RUN)


@pytest.mark.parametrize(
    "wrong",
    [torch.empty(2**32, 0), torch.eye(2).to_sparse(), torch.empty(3, device="meta")],
    ids=["large", "sparse", "meta"],
)
def test_tensors_without_dense_memory_are_not_sent(wrong):
    with pytest.raises(ValueError, match="at most 2 dense tensors"):
        encode(Packet(PacketKind.MESSAGE, 0, 1, tensors=(wrong,)), RUN)


def test_a_view_that_negates_is_sent_with_its_values():
    view = torch.complex(torch.ones(2), torch.ones(2)).conj().imag
    assert view.is_neg()
    assert back(Packet(PacketKind.MESSAGE, 0, 1, tensors=(view,))).tensors[0].tolist() == [-1, -1]


def test_numbers_are_little_endian_on_the_wire_and_other_machines_are_refused(monkeypatch):
    packet = Packet(PacketKind.MESSAGE, 0, 1, tensors=(torch.tensor([1], dtype=torch.int32),))
    assert sent(packet)[1] == b"\1\0\0\0"
    frames = sent(packet)
    monkeypatch.setattr("sys.byteorder", "big")
    for attempt in (lambda: encode(packet, RUN), lambda: decode(frames, RUN, LIMIT)):
        with pytest.raises(RuntimeError, match="numbers are big-endian"):
            attempt()


# --- damage ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([], "header"),
        ([b""], "header"),
        ([sent(MESSAGE)[0][:-1], *sent(MESSAGE)[1:]], "header"),
        ([sent(MESSAGE)[0] + b"\0", *sent(MESSAGE)[1:]], "header"),
        (patched(MESSAGE, 0, b"HTTP"), "magic"),
        (patched(MESSAGE, 4, bytes([VERSION + 1])), "version"),
        (patched(MESSAGE, 4, b"\0"), "version"),
        (sent(MESSAGE, run=b"another run here"), "run"),
        (patched(MESSAGE, KIND, b"\0"), "kind"),
        (patched(MESSAGE, KIND, b"\4"), "kind"),
        (patched(MESSAGE, ENDED, b"\2"), "kind"),
        (sent(MESSAGE)[:2], "frames"),
        (sent(MESSAGE)[:1], "frames"),
        ([*sent(MESSAGE), b""], "frames"),
        ([*sent(MESSAGE)] * 1000, "frames"),
        ([*patched(MESSAGE, COUNT, b"\3"), b""], "frames"),
        (patched(MESSAGE, COUNT, b"\xff"), "frames"),
        (patched(MESSAGE, FIRST, bytes([len(DTYPES)])), "dtype"),
        (patched(MESSAGE, FIRST, b"\xff"), "dtype"),
        (patched(MESSAGE, FIRST + 1, b"\7"), "shape"),
        (patched(MESSAGE, FIRST + 1, b"\1"), "shape"),  # a size beyond the count
        (patched(MESSAGE, FIRST + 1, shaped(2, 4)), "size"),
        (patched(MESSAGE, FIRST + 1, shaped(2, 2)), "size"),
        (patched(MESSAGE, FIRST + 1, shaped(2500, 1000, 1000)), "size"),  # 10 GB
        (patched(MESSAGE, FIRST + 1, shaped(*[2**32 - 1] * 6)), "size"),
        (patched(MESSAGE, FIRST + 1, shaped(2**31, 2**33 // 2**2, 1, 1, 1, 1)), "size"),  # 0 modulo 2⁶⁴
        ([sent(MESSAGE)[0], sent(MESSAGE)[1][:-1], sent(MESSAGE)[2]], "size"),
        ([sent(MESSAGE)[0], b"", sent(MESSAGE)[2]], "size"),
    ],
)  # fmt: skip
def test_damage_is_refused_with_its_reason(frames, reason):
    with pytest.raises(Refused, match=f"^{reason}$"):
        decode(frames, RUN, LIMIT)


@pytest.mark.parametrize("shape", [(0, *[2**32 - 1] * 5), (2**32 - 1, 2**32 - 1, 0, 2**32 - 1)])
def test_an_empty_tensor_of_impossible_sizes_is_refused(shape):
    empty = Packet(PacketKind.MESSAGE, 0, 1, tensors=(torch.zeros(0),))
    with pytest.raises(Refused, match=r"^(shape|size)$"):
        decode(patched(empty, FIRST + 1, shaped(*shape)), RUN, LIMIT)


def test_a_byte_that_is_no_bool_is_refused():
    header, content = sent(Packet(PacketKind.MESSAGE, 0, 1, tensors=(torch.tensor([True, False, True]),)))
    assert content == b"\1\0\1"
    for wrong in (b"\1\2\1", b"\1\0\xff"):
        with pytest.raises(Refused, match=r"^bool$"):
            decode([header, wrong], RUN, LIMIT)


def test_more_than_the_limit_is_refused():
    frames = sent(Packet(PacketKind.MESSAGE, 0, 1, tensors=(torch.zeros(4),)))
    assert decode(frames, RUN, 16).tensors[0].shape == (4,)
    with pytest.raises(Refused, match=r"^size$"):
        decode(frames, RUN, 15)


def refused_or_packet(frames):
    try:
        packet = decode(frames, RUN, LIMIT)
    except Refused as refused:
        reason = str(refused)
    else:
        reason = None
    assert reason is None or reason in REASONS
    if reason:
        return
    assert packet.kind in PacketKind
    assert len(packet.tensors) == len(frames) - 1
    for t, content in zip(packet.tensors, frames[1:], strict=True):
        assert t.numel() * t.element_size() == len(content) <= LIMIT


@given(st.lists(st.one_of(st.binary(max_size=300), st.binary(min_size=HEADER, max_size=HEADER)), max_size=4))
def test_random_bytes_are_refused(frames):
    with pytest.raises(Refused):
        decode(frames, RUN, LIMIT)


@given(st.binary(min_size=HEADER - KIND, max_size=HEADER - KIND), st.lists(st.binary(max_size=64), max_size=3))
@example(b"\1\0" + bytes(26) + b"\1\0" + shaped(0, *[2**32 - 1] * 5) + bytes(26), [b""])
def test_random_bytes_after_a_valid_beginning_do_no_harm(rest, contents):
    refused_or_packet([sent(MESSAGE)[0][:KIND] + rest, *contents])


@given(packets(), st.data())
def test_a_damaged_packet_does_no_harm(drawn, data):
    frames = [bytearray(frame) for frame in sent(made(drawn))]
    for _ in range(data.draw(st.integers(1, 4))):
        frame = data.draw(st.sampled_from(frames))
        if frame:
            frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        frame = data.draw(st.sampled_from(frames))
        del frame[data.draw(st.integers(0, len(frame))) :]
    refused_or_packet([bytes(frame) for frame in frames])
