import os

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
def test_a_torn_checkpoint_is_refused(tmp_path, share):
    checkpoint.save(tmp_path, {"weights": torch.rand(100)})
    content = (tmp_path / checkpoint.NAME).read_bytes()
    (tmp_path / checkpoint.NAME).write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match="start the run anew"):
        checkpoint.load(tmp_path)


def test_none_is_said_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing to resume"):
        checkpoint.load(tmp_path)
