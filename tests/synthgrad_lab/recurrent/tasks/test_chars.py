"""The task ``char-lm``: how a text is read and split, and what is measured on it."""

import logging

import pytest
import torch

from synthgrad_lab.recurrent.tasks.chars import PENN, Chars, read
from tests.synthgrad_lab.recurrent.tasks.chunks import BATCH, joined, steps


@pytest.fixture(autouse=True)
def info(caplog):
    caplog.set_level(logging.INFO, "synthgrad_lab")


def parts(found):
    return ["".join(found.alphabet[n] for n in part.tolist()) for part in (found.train, found.valid, found.test)]


def test_a_text_is_split_in_its_order(tmp_path, caplog):
    path, written = tmp_path / "a.txt", "".join(chr(97 + k % 26) for k in range(996)) + "\r\né\n"
    path.write_bytes(b"\xef\xbb\xbf" + written.encode())
    found = parts(read(path))
    assert [len(part) for part in found] == [900, 50, 50]
    assert "".join(found) == written
    assert caplog.messages == []


@pytest.mark.parametrize(("byte", "encoding", "meant"), [(b"\x80", "cp1252", "€"), (b"\x81", "latin-1", "\x81")])
def test_a_text_that_is_not_utf8_is_read_too(tmp_path, caplog, byte, encoding, meant):
    (tmp_path / "a.txt").write_bytes(b"a" * 99 + byte)
    assert "".join(parts(read(tmp_path / "a.txt"))) == "a" * 99 + meant
    assert caplog.messages == [f"{tmp_path / 'a.txt'} is not UTF-8; read as {encoding}"]


def test_a_text_that_is_missing_empty_or_too_short_is_refused(tmp_path, make):
    path = tmp_path / "a.txt"
    with pytest.raises(FileNotFoundError, match=r"text=.*a.txt: no such file or folder"):
        read(path)
    for content, left in (("", 0), ("a" * 20, 1)):
        path.write_text(content)
        with pytest.raises(ValueError, match=f"text=.*a.txt: too short; its smallest part has {left} characters"):
            read(path)
    with pytest.raises(
        ValueError, match=r"char-lm needs a text: --task.text FILE, or a folder with Penn Treebank's ptb"
    ):
        make("char-lm", **{"task.text": None})


def test_a_folder_is_read_as_penn_treebank(tmp_path, caplog, monkeypatch):
    written = {"train": " the <unk> \n of N \n", "valid": "  no\n", "test": " on\n\n"}
    for kind, (name, *_) in PENN.items():
        with pytest.raises(FileNotFoundError, match=f"no {name}; a folder must hold .*train.txt.*valid.*test.txt"):
            read(tmp_path)
        (tmp_path / name).write_text(written[kind])
    caplog.clear()
    assert parts(read(tmp_path)) == ["the <unk>\nof N\n", "no\n", "on\n\n"]
    said = list(caplog.messages)
    caplog.clear()
    assert len(said) == 3
    for line, (name, md5, _) in zip(said, PENN.values(), strict=True):
        assert name in line
        assert f"not {md5}): do not compare its bits with others'" in line
        found = line.partition("(MD5 ")[2][:32]
        monkeypatch.setitem(PENN, name[4:].partition(".")[0], (name, found, 3))
    with pytest.raises(ValueError, match=r"ptb.train.txt gives 15 symbols, not 3"):
        read(tmp_path)
    assert caplog.messages == []


def test_targets_are_the_next_characters_round_and_round(make):
    task = make("char-lm", T=50)
    train = task.text.train
    x, y, _ = joined(steps(task, 2 * len(train)))
    symbols = x.argmax(-1)
    assert torch.equal(x.sum(-1), torch.ones(symbols.shape))
    assert torch.equal(symbols[1:], y[:-1])
    assert torch.equal(symbols[len(train) :], symbols[: -len(train)])
    twice = torch.cat([train, train]).unfold(0, len(train), 1)
    begins = [(twice == symbols[: len(train), b]).all(1).any().item() for b in range(BATCH)]
    assert begins == [True] * BATCH


def test_bits_per_character_of_a_perfect_network_and_of_a_guess(tmp_path, make):
    (tmp_path / "ab.txt").write_text("ab" * 2000)
    task = make("char-lm", **{"task.text": str(tmp_path / "ab.txt")})
    for kind in ("validation", "test"):
        key = f"{kind}_bits_per_character"
        assert task.evaluate(lambda x: (1 - x) * 60, kind == "test")[key] < 1e-6
        assert task.evaluate(lambda x: x * 0, kind == "test")[key] == pytest.approx(1)


LINES = b"the cat sat on the mat;\n" * 40


def test_windows_line_ends_are_reported(tmp_path, caplog):
    path = tmp_path / "a.txt"
    path.write_bytes(LINES.replace(b"\n", b"\r\n"))
    assert len(read(path).alphabet) == len(set(LINES)) + 1
    assert caplog.messages == [
        f"text={path}: its 40 lines end in two characters, \\r\\n; dos2unix {path} makes it one"
    ]
    caplog.clear()
    path.write_bytes(LINES)
    read(path)
    assert caplog.messages == []


def test_characters_missing_from_training_are_counted(tmp_path, caplog):
    path = tmp_path / "a.txt"
    path.write_text("ab" * 450 + "abxyx" * 10 + "ab" * 24 + "xy")
    Chars(5, 10, 0, str(path))
    assert caplog.messages == [
        f"text={path}: 30 of the valid part's 50 characters are never seen in training",
        f"text={path}: 2 of the test part's 50 characters are never seen in training",
    ]


def test_a_text_that_is_too_short_for_its_batch_or_its_measure(tmp_path, caplog):
    path = tmp_path / "a.txt"
    path.write_text("ab" * 50)
    with pytest.raises(ValueError, match=r"batch=91: the training part has 90 characters.* choose a smaller batch"):
        Chars(5, 91, 0, str(path))
    task = Chars(5, 90, 0, str(path))
    for _ in range(2):
        task.evaluate(lambda x: x)
    assert caplog.messages == ["bits per character rest on 1 characters only: a longer text is surer"]
