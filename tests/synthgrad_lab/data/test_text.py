"""Texts are decoded; for other files, the error names the format."""

import bz2
import gzip
import io
import lzma
import os
import random
import re
import tarfile
import zipfile

import pytest

from synthgrad_lab.data.text import decode_text
from synthgrad_lab.recurrent.tasks.chars import read

TEXT = "Ein schöner Satz, €5, 猫.\n" * 40
LINES = b"to be or not to be\n" * 40


def archive(kind):
    stream = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(stream, "w") as packed:
            packed.writestr("a.txt", LINES)
    else:
        with tarfile.open(fileobj=stream, mode="w") as packed:
            member = tarfile.TarInfo("a.txt")
            member.size = len(LINES)
            packed.addfile(member, io.BytesIO(LINES))
    return stream.getvalue()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_the_byte_order_mark_gives_the_encoding(encoding, messages):
    assert decode_text(TEXT.encode(encoding), "a.txt") == TEXT
    if encoding in ("utf-16", "utf-32"):  # in the other order of bytes, too
        other = f"{encoding}-be"
        assert decode_text("\ufeff".encode(other) + TEXT.encode(other), "a.txt") == TEXT
    assert messages() == []


@pytest.mark.parametrize(
    ("content", "text", "encoding"), [(b"\x805", "€5", "cp1252"), (b"\x80\x81", "\x80\x81", "latin-1")]
)
def test_other_encodings_are_guessed_with_a_warning(content, text, encoding, messages):
    assert decode_text(content, "a.txt") == text
    assert messages() == [f"a.txt is not UTF-8; read as {encoding}"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (gzip.compress(LINES), "came a gzip file, wanted a plain text; unpack it first: gunzip a.txt"),
        (archive("zip"), "came a zip archive, wanted a plain text; unpack it first: unzip a.txt"),
        (archive("tar"), "came a tar archive, wanted a plain text; unpack it first: tar xf a.txt"),
        (bz2.compress(LINES), "came a bzip2 file, wanted a plain text; unpack it first: bunzip2 a.txt"),
        (bz2.compress(LINES, 1), "came a bzip2 file"),
        (lzma.compress(LINES), "came an xz file, wanted a plain text; unpack it first: unxz a.txt"),
        (lzma.compress(LINES, lzma.FORMAT_ALONE), "came an lzma file"),
        (b"\x28\xb5\x2f\xfd" + LINES, "came a zstd file, wanted a plain text; unpack it first: unzstd a.txt"),
        (b"\x04\x22\x4d\x18" + LINES, "came an lz4 file"),
        (b"7z\xbc\xaf\x27\x1c" + LINES, "came a 7z archive"),
        (b"%PDF-1.7\n" + LINES, "came a PDF, wanted a plain text; unpack it first: pdftotext a.txt"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", ".*git lfs pull"),
        (LINES.decode().encode("utf-16-le"), "came 760 NUL bytes, .*iconv -f UTF-16LE -t UTF-8 a.txt"),
        (LINES.decode().encode("utf-16-be"), "came 760 NUL bytes, .*iconv -f UTF-16BE -t UTF-8 a.txt"),
        (LINES + b"\0" + LINES, "came 1 NUL bytes, wanted a plain text; "),
        (random.Random(0).randbytes(4000).replace(b"\0", b"\1"), "came binary data .* control characters"),
        (b"\xff\xfe" + LINES[:-1], "came the mark of utf-16, but .*truncated.* convert it to UTF-8"),
        (b"\xef\xbb\xbf" + LINES + b"\xff", "came the mark of utf-8-sig, but invalid start byte at byte 760"),
        ("a\0b\n".encode("utf-16"), "came utf-16 with NUL characters"),
    ],
    ids=lambda value: re.sub(r"\W+", "-", value[:40]) if isinstance(value, str) else "",
)
def test_the_error_names_the_format_of_other_files(content, said):
    with pytest.raises(ValueError, match=f"^a.txt: {said}") as caught:
        decode_text(content, "a.txt")
    assert str(caught.value).count("\n") == 0


@pytest.mark.parametrize("name", ["whole.txt", "ptb.valid.txt"])
def test_packed_files_are_refused_as_texts(tmp_path, name):
    for other in ("whole.txt", "ptb.train.txt", "ptb.valid.txt", "ptb.test.txt"):
        (tmp_path / other).write_bytes(gzip.compress(LINES) if other == name else LINES)
    with pytest.raises(ValueError, match=f"{name}: came a gzip file"):
        read(tmp_path / name if name == "whole.txt" else tmp_path)


def test_a_pipe_is_refused_before_anything_is_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match=r"pipe: a pipe or a device can be read once only, .* write it to a file"):
        read(tmp_path / "pipe")


def test_a_text_may_contain_a_bell():
    assert decode_text(b"ding \x07\n", "a.txt") == "ding \x07\n"
