"""Loads a few records in both formats from real folders, archives and a real server."""

import dataclasses
import gzip
import io
import os
import pickle
import struct
import tarfile
import time
import warnings

import numpy as np
import pytest
import torch

import synthgrad_lab.data
from synthgrad_lab.data import cifar, load
from synthgrad_lab.data.find import load_images
from tests.helpers.small_files import md5, write

RECORDS = 3
NAMES = [file.name for file in cifar.PYTHON.files]
FIRST, TEST = NAMES[0], NAMES[-1]


def _rows(seed):
    random = np.random.default_rng(seed)
    return np.column_stack([random.integers(0, 10, RECORDS), random.integers(0, 256, (RECORDS, 3072))])


ROWS = {name: _rows(seed).astype(np.uint8) for seed, name in enumerate(NAMES)}


def _string(content):
    short = len(content) < 256
    return (b"U" + bytes([len(content)]) if short else b"T" + struct.pack("<i", len(content))) + content


def _python2(rows, dtype=b"u1", raw=None, shape=None):
    """Write a batch opcode by opcode, as Python 2 and an old NumPy did."""
    count, width = shape or (len(rows), 3072)
    return b"".join(
        [
            b"\x80\x02}(",
            *(_string(b"batch_label"), _string(b"training batch 1 of 5")),
            *(_string(b"labels"), b"](", *(b"K" + bytes([label]) for label in rows[:, 0]), b"e"),
            _string(b"data"),
            *(b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85", _string(b"b"), b"\x87R"),
            *(b"(K\x01", b"M" + struct.pack("<H", count), b"M" + struct.pack("<H", width), b"\x86"),
            *(b"cnumpy\ndtype\n", _string(dtype), b"K\0K\1\x87R(K\x03", _string(b"|")),
            b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb",
            *(b"\x89", _string(rows[:, 1:].tobytes() if raw is None else raw), b"tb"),
            *(_string(b"filenames"), b"](", *(_string(b"cat_s_%06d.png" % i) for i in range(len(rows))), b"e"),
            b"u.",
        ]
    )


def _dump(rows, protocol=2, **changes):
    batch = {"labels": rows[:, 0].tolist(), "data": rows[:, 1:].copy(), **changes}
    return pickle.dumps({key.encode(): value for key, value in batch.items()}, protocol)


BIN = {f"{name}.bin": rows.tobytes() for name, rows in ROWS.items()}
PY = {name: _python2(rows) for name, rows in ROWS.items()}


def _packed(folder, files, extra=()):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in reversed(files.items()):  # the published archive is not in order either
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for member in extra:
            tar.addfile(member)
    return gzip.compress(stream.getvalue(), mtime=0)


BIN_TAR = _packed("cifar-10-batches-bin", BIN)
PY_TAR = _packed("cifar-10-batches-py", PY)


def _tiny(spec, contents, archive):
    files = tuple(
        dataclasses.replace(file, shape=(RECORDS, 3073), md5=md5(contents[file.name])) for file in spec.files
    )
    where = dataclasses.replace(spec.archive, url=f"http://127.0.0.1:9/{spec.archive.name}", md5=md5(archive))
    return dataclasses.replace(spec, name="tiny", title="Tiny", files=files, archive=where, validation=4)


TINY = (_tiny(cifar.BINARY, BIN, BIN_TAR), _tiny(cifar.PYTHON, PY, PY_TAR))


def _check(images, source="Tiny"):
    train = np.concatenate([ROWS[name] for name in NAMES[:-1]])
    assert images.source == source
    assert images.train_x.shape == (5 * RECORDS - 4, 3, 32, 32)
    assert images.validation_x.shape == (4, 3, 32, 32)
    for part in ("train", "validation", "test"):
        assert getattr(images, f"{part}_x").dtype == torch.float32
        assert getattr(images, f"{part}_y").dtype == torch.int64
    # One pixel at the place that the format describes: plane by plane, red first, row by row.
    assert images.test_x[1, 2, 5, 7].item() == pytest.approx(int(ROWS[TEST][1, 1 + 2 * 1024 + 5 * 32 + 7]) / 255)
    assert _bytes(images.test_x, images.test_y) == [row.tobytes() for row in ROWS[TEST]]
    both = _bytes(images.train_x, images.train_y) + _bytes(images.validation_x, images.validation_y)
    assert sorted(both) == sorted(row.tobytes() for row in train)


def _bytes(x, y):
    pixels = (x * 255).round().byte().flatten(1)
    return [bytes([label, *row]) for label, row in zip(y.tolist(), pixels.tolist(), strict=True)]


def _refused(folder, said, error=ValueError):
    with pytest.raises(error, match=said) as caught:
        load_images(TINY, folder)
    message = str(caught.value)
    assert str(folder) in message
    assert message.count("\n") <= 1
    assert len(message) < 700


def test_the_hand_written_pickle_is_valid():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of numpy.core
        batch = pickle.loads(PY[FIRST], encoding="bytes")
    np.testing.assert_array_equal(np.column_stack([batch[b"labels"], batch[b"data"]]), ROWS[FIRST])


@pytest.mark.parametrize("sub", [True, False])
@pytest.mark.parametrize(
    ("folder", "files"), [("cifar-10-batches-bin", BIN), ("cifar-10-batches-py", PY)], ids=["binary", "python"]
)
def test_folder(tmp_path, folder, files, sub, messages):
    write(tmp_path / folder if sub else tmp_path, files)
    _check(load_images(TINY, str(tmp_path), tmp_path / "cache"))
    assert messages() == []
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "files",
    [
        {"cifar-10-binary.tar.gz": BIN_TAR},
        {"cifar-10-python.tar.gz": PY_TAR},
        {"cifar-10-binary.tar.gz": gzip.decompress(BIN_TAR)},  # as browsers keep it
    ],
)
def test_archive_in_the_folder(tmp_path, files):
    write(tmp_path, files)
    _check(load_images(TINY, tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(files)


def test_both_formats_give_the_same_tensors(tmp_path):
    binary = load_images(TINY, write(tmp_path / "a", BIN))
    python = load_images(TINY, write(tmp_path / "b", PY))
    for field in dataclasses.fields(binary):
        if isinstance(value := getattr(binary, field.name), torch.Tensor):
            assert torch.equal(value, getattr(python, field.name))


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_the_source_says_if_files_differ_from_the_published_ones(tmp_path, protocol):
    write(tmp_path, {name: _dump(rows, protocol) for name, rows in ROWS.items()})
    _check(load_images(TINY, tmp_path), "Tiny (other files than the published ones)")


def test_the_source_says_if_one_pixel_differs(tmp_path):
    write(tmp_path, BIN | {"data_batch_3.bin": BIN["data_batch_3.bin"][:-1] + b"\x07"})
    assert load_images(TINY, tmp_path).source == "Tiny (other files than the published ones)"


def _labelled(label):
    rows = ROWS[FIRST].copy()
    rows[1, 0] = label
    return rows


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (BIN[f"{FIRST}.bin"][:-1], "came 9,218 bytes, wanted whole records of 3,073: truncated"),
        (BIN[f"{FIRST}.bin"] + b"\0", "came 9,220 bytes, .* bytes follow"),
        (BIN[f"{FIRST}.bin"][3073:], r"came shape \(2, 3073\) .* wanted \(3, 3073\)"),
        (BIN[f"{FIRST}.bin"] + bytes(3073), r"came shape \(4, 3073\) .* wanted \(3, 3073\)"),
        (b"", r"came shape \(0, 3073\)"),
        (_labelled(10).tobytes(), "came label 10 in record 1, wanted 0 to 9"),
        (PY[FIRST], f"holds the content of tiny's {FIRST}, wanted tiny's {FIRST}.bin"),
        (BIN[f"{TEST}.bin"], f"holds the content of tiny's {TEST}.bin, wanted tiny's {FIRST}.bin"),
    ],
)
def test_bad_binary_batch(tmp_path, content, said):
    write(tmp_path, BIN | {f"{FIRST}.bin": content})
    _refused(tmp_path, f"^{tmp_path / FIRST}.bin: .*{said}")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (PY[FIRST][:-1], "damaged or not a batch"),
        (PY[FIRST][:5000], "damaged or not a batch"),
        (b"", "damaged or not a batch"),
        (PY[FIRST] + b"\0", "bytes follow the pickle's end"),
        (BIN[f"{FIRST}.bin"], f"holds the content of tiny's {FIRST}.bin"),
        (pickle.dumps([1, 2]), "without data and labels"),
        (pickle.dumps({b"data": 0}), "without data and labels"),
        (_python2(ROWS[FIRST][1:]), r"came shape \(2, 3073\) .* wanted \(3, 3073\)"),
        (_python2(_labelled(10)), "came label 10 in record 1, wanted 0 to 9"),
        (_dump(ROWS[FIRST], labels=[1, -1, 2]), "came label -1 in record 1"),
        (_dump(ROWS[FIRST], labels=[1, 10**5000, 2]), "came label of type int in record 1"),
        (_dump(ROWS[FIRST], labels=[1, 2, 3.0]), "came label of type float in record 2"),
        (_dump(ROWS[FIRST], labels=[True, 2, 3]), "came label of type bool in record 0"),
        (_dump(ROWS[FIRST], labels=[1, 2]), "came labels: 2, wanted a list of 3"),
        (_dump(ROWS[FIRST], labels="123"), "came labels: str, wanted a list"),
        (_dump(ROWS[FIRST], labels=np.zeros(3, np.uint8)), "came labels: _StandIn, wanted a list"),
        (_dump(ROWS[FIRST], data=b"bytes"), "no plain uint8 array"),
        (_dump(ROWS[FIRST], data=np.dtype("u1")), "no plain uint8 array"),
        (_dump(ROWS[FIRST], data=ROWS[FIRST][:, 1:].astype(np.int8)), "no plain uint8 array"),
        (_dump(ROWS[FIRST], data=np.asfortranarray(ROWS[FIRST][:, 1:])), "no plain uint8 array"),
        (
            _dump(ROWS[FIRST], data=ROWS[FIRST][:, 2:].copy()),
            r"shape \(3, 3071\) in 9,213 bytes, wanted rows of 3,072",
        ),
        (_python2(ROWS[FIRST], shape=(30, 3072)), r"shape \(30, 3072\) in 9,216 bytes"),
        (_python2(ROWS[FIRST], shape=(3, 1024)), r"shape \(3, 1024\) in 9,216 bytes"),
        (_python2(ROWS[FIRST], raw=b""), r"shape \(3, 3072\) in 0 bytes"),
    ],
)
def test_bad_python_batch(tmp_path, content, said):
    write(tmp_path, PY | {FIRST: content})
    _refused(tmp_path, f"^{tmp_path / FIRST}: .*{said}")


@pytest.mark.parametrize(
    "content",
    [
        _dump(ROWS[FIRST], data=np.full((RECORDS, 3072), None)),
        _python2(ROWS[FIRST], dtype=b"O8", raw=bytes(8 * RECORDS * 3072)),  # would be pointers
        _python2(ROWS[FIRST], dtype=b"V1"),
    ],
)
def test_object_arrays_are_refused(tmp_path, content):
    write(tmp_path, PY | {FIRST: content})
    _refused(tmp_path, "no plain uint8 array")


class Evil:
    def __init__(self, function, *args):
        self.asks = function, args

    def __reduce__(self):
        return self.asks


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_malicious_pickle_is_refused_and_does_not_run(tmp_path, inside, protocol):
    mark = tmp_path / "ran"
    evil = Evil(os.mkdir, str(mark))
    content = _dump(ROWS[FIRST], protocol, filenames=[evil]) if inside else pickle.dumps(evil, protocol)
    pickle.loads(content)
    mark.rmdir()  # the pickle works: pickle.loads ran it
    write(tmp_path, PY | {FIRST: content})
    _refused(tmp_path, r"it asks for '\w+.mkdir', refused")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        *(("builtins", "eval"), ("__builtin__", "eval"), ("builtins", "getattr"), ("copyreg", "_reconstructor")),
        *(("numpy", "load"), ("numpy", "ndarray.tofile"), ("numpy.core.multiarray", "scalar"), ("numpy", "memmap")),
        *(("numpy._core.numeric", "_frombuffer"), ("_codecs", "decode"), ("codecs", "encode"), ("pickle", "loads")),
        ("synthgrad_lab.data.cifar", "_StandIn"),
    ],
)
def test_all_other_names_are_refused(module, name):
    lines = [f"c{module}\n{name}\n.".encode(), f"(i{module}\n{name}\n.".encode()]
    for content in [*lines, pickle.dumps(module, 4)[:-1] + pickle.dumps(name, 4)[2:-1] + b"\x93."]:
        with pytest.raises(ValueError, match=f"batch: .*asks for '{module}.{name}', refused"):
            cifar.parse_python(content, "batch")


def test_a_pickle_cannot_change_the_reader():
    """The opcode b sets attributes of the object below it: here, of each callable that a pickle can get."""
    junk = b"}(X\x0c\x00\x00\x00__setstate__K\x01ub"
    lines = [b"numpy.core.multiarray\n_reconstruct\n", b"numpy\ndtype\n", b"_codecs\nencode\n", b"numpy\nndarray\n"]
    before = vars(cifar._Reader).copy(), vars(cifar._StandIn).copy()
    for line in lines:
        with pytest.raises(ValueError, match="batch: "):
            cifar.parse_python(b"\x80\x02c" + line + junk + b".", "batch")
    assert (vars(cifar._Reader), vars(cifar._StandIn)) == before
    np.testing.assert_array_equal(cifar.parse_python(PY[FIRST], "batch"), ROWS[FIRST])


@pytest.mark.parametrize("sub", ["", "cifar-10-batches-bin"])
def test_a_missing_file_is_named_and_nothing_is_downloaded(tmp_path, serve, sub):
    formats = _served(serve)
    place = write(tmp_path / "d" / sub, {name: BIN[name] for name in BIN if name != f"{TEST}.bin"})
    with pytest.raises(FileNotFoundError) as caught:
        load_images(formats, tmp_path / "d")
    first, second = str(caught.value).splitlines()
    assert first == f"tiny: {TEST}.bin not in the data folder {place}."
    assert (
        f"Put into {tmp_path / 'd'} all 6 files, plain or .gz, or one of cifar-10-batches-bin, cifar-10-bin"
        in second
    )
    assert serve.served == []


def test_the_folder_does_not_exist(tmp_path):
    _refused(tmp_path / "nowhere", f"{FIRST}.bin, .*{TEST}.bin not in the data folder", FileNotFoundError)


def test_packed_files_are_named(tmp_path):
    write(tmp_path, BIN | {f"{FIRST}.bin": b"PK\3\4" + BIN[f"{FIRST}.bin"]})
    _refused(
        tmp_path, f"{FIRST}.bin: came a zip archive, wanted tiny's {FIRST}.bin; unpack it first: unzip {tmp_path}"
    )
    folder = write(tmp_path / "d", {"cifar10.zip": b"PK", "read.me": b""})
    _refused(folder, r"(?s)not in .*\n.*\. If they are inside cifar10.zip, unpack that first\.$", FileNotFoundError)
    with pytest.raises(NotADirectoryError, match=r"data_dir=.*cifar10.zip is a file, wanted the folder with"):
        load("cifar10", folder / "cifar10.zip")


def test_files_from_two_places_are_not_combined(tmp_path):
    names = list(BIN)
    write(tmp_path, {name: BIN[name] for name in names[:4]})
    write(tmp_path / "cifar-10-batches-bin", {name: BIN[name] for name in names[4:]})
    _refused(tmp_path, f"{names[4]}, {names[5]} not in", FileNotFoundError)


def test_two_files_with_the_same_content_are_refused(tmp_path):
    other = BIN[f"{TEST}.bin"][:-1] + b"\x01"
    write(tmp_path, BIN | {f"{FIRST}.bin": other, f"{TEST}.bin": other})
    _refused(tmp_path, f"{TEST}.bin: holds the same as {FIRST}.bin, wanted 6 different files")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (BIN_TAR[:-30], "came a damaged archive"),
        (BIN_TAR[:20_000], "came a damaged archive"),
        (BIN_TAR[:-8] + bytes(4) + BIN_TAR[-4:], "came a damaged archive .*CRC"),
        (b"<html>", "came a damaged archive"),
        (b"PK\3\4" + BIN_TAR, "came a zip archive, wanted the published cifar-10-binary.tar.gz; .*unzip"),
        (gzip.decompress(BIN_TAR)[:20_000], "came a damaged archive"),
        (b"", "came a damaged archive"),
        (
            _packed("elsewhere", BIN),
            f"came no cifar-10-batches-bin/{FIRST}.bin, .*wanted the whole cifar-10-binary",
        ),
        (_packed("cifar-10-batches-bin", BIN | {f"{TEST}.bin": b"\1" * 3000}), f"bin/{TEST}.bin in .*: came 3,000"),
        (_packed("cifar-10-batches-bin", BIN | {f"{TEST}.bin": bytes(10**6)}), f"bin/{TEST}.bin in .*: came shape"),
    ],
)
def test_bad_archive(tmp_path, content, said):
    write(tmp_path, {"cifar-10-binary.tar.gz": content})
    _refused(tmp_path, said)


def test_only_regular_files_are_read_from_an_archive(tmp_path):
    outside = tarfile.TarInfo("../outside")
    link = tarfile.TarInfo(f"cifar-10-batches-bin/{TEST}.bin")
    link.type, link.linkname = tarfile.SYMTYPE, f"{FIRST}.bin"
    device = tarfile.TarInfo("cifar-10-batches-bin/fifo")
    device.type = tarfile.FIFOTYPE
    folder = write(
        tmp_path / "d", {"cifar-10-binary.tar.gz": _packed("cifar-10-batches-bin", BIN, (outside, device))}
    )
    _check(load_images(TINY, folder))
    most = {name: content for name, content in BIN.items() if name != f"{TEST}.bin"}
    write(folder, {"cifar-10-binary.tar.gz": _packed("./cifar-10-batches-bin", most, (link,))})
    _refused(folder, f"came no cifar-10-batches-bin/{TEST}.bin")
    assert [path.name for path in tmp_path.rglob("*")] == ["d", "cifar-10-binary.tar.gz"]


def _served(serve, content=BIN_TAR):
    binary, python = TINY
    url = serve({binary.archive.name: content}) + binary.archive.name
    return dataclasses.replace(binary, archive=dataclasses.replace(binary.archive, url=url)), python


def test_download_then_cache(tmp_path, serve, messages, monkeypatch):
    monkeypatch.setenv("SYNTHGRAD_CACHE", str(tmp_path / "cache"))
    formats = _served(serve)
    _check(load_images(formats))
    assert messages() == [f"tiny: 6 files from {formats[0].archive.url}"]
    assert serve.served == ["/cifar-10-binary.tar.gz"]
    assert {path.name: path.read_bytes() for path in (tmp_path / "cache/tiny").iterdir()} == BIN
    _check(load_images(TINY))
    assert messages() == []


@pytest.mark.parametrize("published", [False, True])
def test_a_wrong_archive_is_refused(tmp_path, serve, messages, published):
    """Because of its own MD5; if that is right, because of a file's."""
    content = _packed("cifar-10-batches-bin", BIN | {f"{TEST}.bin": bytes(3 * 3073)})
    formats = _served(serve, content)
    if published:
        archive = dataclasses.replace(formats[0].archive, md5=md5(content))
        formats = (dataclasses.replace(formats[0], archive=archive), formats[1])
    with pytest.raises(FileNotFoundError, match=r"tiny: not in .*, and not available from http"):
        load_images(formats, cache=tmp_path / "cache")
    assert not (tmp_path / "cache" / "tiny" / f"{TEST}.bin").exists()
    assert ("with MD5" if published else "does not match the known hash") in messages()[-1]


@pytest.mark.parametrize("bad", [b"", BIN[f"{TEST}.bin"][:-1], BIN[f"{FIRST}.bin"], bytes(3 * 3073)])
def test_damaged_cache_is_removed_and_downloaded_again(tmp_path, serve, messages, bad):
    folder = write(tmp_path / "tiny", BIN | {f"{TEST}.bin": bad})
    with pytest.raises(FileNotFoundError):
        load_images(TINY, cache=tmp_path)
    assert messages()[0].startswith(f"removed from the cache, to be downloaded again: {folder / TEST}.bin: ")
    assert not (folder / f"{TEST}.bin").exists()
    _check(load_images(_served(serve), cache=tmp_path))
    assert (folder / f"{TEST}.bin").read_bytes() == BIN[f"{TEST}.bin"]


def test_no_network(tmp_path, messages):
    start = time.monotonic()
    with pytest.raises(FileNotFoundError) as caught:
        load_images(TINY, cache=tmp_path / "cache")
    assert time.monotonic() - start < 60
    message = str(caught.value)
    assert message.count("\n") == 1
    assert str(tmp_path / "cache" / "tiny") in message
    assert all(name in message for name in [*BIN, "cifar-10-binary.tar.gz", "data_dir"])
    assert len(messages()) == 2  # the attempt and its failure
    assert not (tmp_path / "cache").exists()


def test_by_name(tmp_path, monkeypatch):
    write(tmp_path, BIN)
    with pytest.raises(ValueError, match=r"came shape \(3, 3073\) .* wanted \(10000, 3073\)"):
        load("cifar10", tmp_path)
    monkeypatch.setitem(synthgrad_lab.data.DATA_SETS, "cifar10", TINY)
    _check(load("cifar10", tmp_path))
    with pytest.raises(FileNotFoundError):
        load("cifar10", cache=tmp_path / "cache")


@pytest.mark.parametrize("name", ["cifar-10", "CIFAR10", "cifar"])
def test_unknown_name(name):
    wanted = f"unknown data set '{name}', wanted one of mnist, fashion-mnist, cifar10; did you mean 'cifar10'"
    with pytest.raises(ValueError, match=wanted):
        load(name)
