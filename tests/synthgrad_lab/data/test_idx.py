"""IDX files are read as they were written; all other content is refused."""

import gzip
import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthgrad_lab.data.mnist import parse

GOOD = bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6])


@given(st.lists(st.integers(0, 5), min_size=1, max_size=5), st.booleans(), st.randoms(use_true_random=False))
def test_round_trip(shape, zipped, random):
    array = np.frombuffer(random.randbytes(math.prod(shape)), np.uint8).reshape(shape)
    content = bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + array.tobytes()
    got = parse(gzip.compress(content, mtime=0) if zipped else content, "x")
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, array, strict=True)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "came 0 bytes that start with nothing"),
        (GOOD[:3], "start with 00 00 08"),
        (b"<html>", "start with 3c 68 74 6d"),
        (b"\0\0\x0d" + GOOD[3:], "start with 00 00 0d 02"),
        (bytes([0, 0, 8, 0, 7]), "start with 00 00 08 00"),
        (GOOD[:9], "wanted a header of 12: truncated"),
        (GOOD[:-1], r"came 17 bytes, wanted 18 for the shape \(2, 3\).*truncated"),
        (GOOD + b"\0", "came 19 bytes, wanted 18.*bytes follow"),
        (gzip.compress(GOOD, mtime=0)[:-9], "damaged gzip"),
        (gzip.compress(GOOD, mtime=0)[:-5] + b"\xff" + gzip.compress(GOOD, mtime=0)[-4:], "damaged gzip"),
        (gzip.compress(GOOD, mtime=0) + b"rest", "damaged gzip"),
        (b"\x1f\x8bnot gzip at all", "damaged gzip"),
        (gzip.compress(b"", mtime=0), "came 0 bytes"),
    ],
)
def test_other_content_is_refused_and_the_error_names_the_file(content, said):
    with pytest.raises(ValueError, match=f"(?s)^some/file: .*{said}"):
        parse(content, "some/file")


@given(st.binary(max_size=40))
def test_any_bytes_raise_no_other_error(content):
    try:
        parse(content, "x")
    except ValueError as error:
        assert str(error).startswith("x: ")  # noqa: PT017
