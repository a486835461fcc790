import errno
import os
from pathlib import Path

import pytest
import torch

from synthgrad import checkpoint


def test_round_trip(tmp_path):
    checkpoint.save(tmp_path, {"step": 3, "weights": [{"a": torch.eye(2)}]})
    state = checkpoint.load(tmp_path)
    assert state["step"] == 3
    assert torch.equal(state["weights"][0]["a"], torch.eye(2))
    assert [p.name for p in tmp_path.iterdir()] == [checkpoint.NAME]


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("hacked",)


def test_no_code_is_run_from_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"step": Hostile()}, checkpoint.NAME)
    with pytest.raises(ValueError, match="not a checkpoint that can be trusted"):
        checkpoint.load(tmp_path)
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_an_incomplete_checkpoint_is_refused(tmp_path, share):
    checkpoint.save(tmp_path, {"weights": torch.rand(100)})
    content = (tmp_path / checkpoint.NAME).read_bytes()
    (tmp_path / checkpoint.NAME).write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match="start the run from the beginning"):
        checkpoint.load(tmp_path)


def test_a_missing_checkpoint_is_reported(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing to resume"):
        checkpoint.load(tmp_path)


def test_torch_reads_it_too(tmp_path):
    checkpoint.save(tmp_path, {"weights": torch.eye(3)})
    assert torch.equal(torch.load(tmp_path / checkpoint.NAME)["weights"], torch.eye(3))


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.7, 0.9, 0.999])
def test_a_flipped_bit_is_refused_by_name(tmp_path, share):
    checkpoint.save(tmp_path, {"weights": torch.rand(1000)})
    path = tmp_path / checkpoint.NAME
    content = bytearray(path.read_bytes())
    content[int(share * len(content))] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        ValueError,
        match=f"{path} is not a checkpoint .*its digest does not match.*start the run from the beginning",
    ):
        checkpoint.load(tmp_path)


def test_an_older_file_without_a_digest_is_read(tmp_path):
    torch.save({"step": 3}, tmp_path / checkpoint.NAME)
    assert checkpoint.load(tmp_path) == {"step": 3}


@pytest.mark.parametrize("cut", [1, 20, 47, 48, 49])
def test_a_file_without_its_last_bytes_is_refused(tmp_path, cut):
    """Also if only a part of the digest is missing."""
    checkpoint.save(tmp_path, {"weights": torch.rand(10)})
    path = tmp_path / checkpoint.NAME
    path.write_bytes(path.read_bytes()[:-cut])
    if cut == 48:  # all of the digest: a whole file of before
        assert checkpoint.load(tmp_path)["weights"].shape == (10,)
    else:
        with pytest.raises(ValueError, match="incomplete, or damaged at its end"):
            checkpoint.load(tmp_path)


@pytest.mark.parametrize("content", [b"\0" * 100, b"PK\3\4" + bytes(60) + b"PK\5\6" + bytes(18), b"\x80\2}q\0."])
def test_a_file_that_is_no_checkpoint_is_a_value_error(tmp_path, content):
    (tmp_path / checkpoint.NAME).write_bytes(content)
    with pytest.raises(ValueError, match="is not a checkpoint that can be trusted"):
        checkpoint.load(tmp_path)


def test_a_checkpoint_without_a_dict_is_refused(tmp_path):
    torch.save(torch.eye(2), tmp_path / checkpoint.NAME)
    with pytest.raises(ValueError, match="it holds a Tensor, no dict"):
        checkpoint.load(tmp_path)


def test_tensors_of_another_device_are_loaded_on_the_cpu(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        checkpoint.save(tmp_path, {"weights": torch.ones(3)})
    assert checkpoint.load(tmp_path)["weights"].device.type == "cpu"


def test_on_a_full_disk_the_previous_one_is_kept(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, {"step": 1})

    def full(number):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        OSError, match=r"No space left on device.*the previous one is kept; free some space, then resume"
    ) as error:
        checkpoint.save(tmp_path, {"step": 2})
    assert error.value.errno == errno.ENOSPC
    assert "\n" not in str(error.value)
    assert checkpoint.load(tmp_path) == {"step": 1}
    assert [path.name for path in Path(tmp_path).iterdir()] == [checkpoint.NAME]
