"""A text, character by character: any file, or Penn Treebank's word files."""

from __future__ import annotations

import hashlib
import logging
import math
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from synthgrad_lab.data.text import decode_text
from synthgrad_lab.recurrent.tasks.base import Chunk, Network, Task

PENN = {
    "train": ("ptb.train.txt", "f26c4b92c5fdc7b3f8c7cdcb991d8420", 5_017_482),
    "valid": ("ptb.valid.txt", "aa0affc06ff7c36e977d7cd49e3839bf", 393_042),
    "test": ("ptb.test.txt", "8b80168b89c18661a38ef683c0dc3721", 442_423),
}
"""Penn Treebank as Mikolov prepared it: name, MD5, and symbols under this recipe."""
SHARES = (0.9, 0.05, 0.05)
"""Shares of any other text, in its own order: training, validation, test."""
STREAMS = 100
"""Streams of an evaluation, side by side."""
FEW = 20
"""Least number of characters of an evaluation; with fewer its measure means little."""
log = logging.getLogger(__name__)


class Text(NamedTuple):
    """The three parts of a text as symbols 0 … n-1, and the characters that these stand for."""

    train: Tensor
    valid: Tensor
    test: Tensor
    alphabet: str


def read(place: Path) -> Text:
    """Read a text file, or a folder with Penn Treebank's three word files.

    Penn Treebank's recipe: strip each line, keep its end as a symbol; 50 distinct symbols. Any other text is read as
    it is, with both characters of a Windows line end.

    Raises:
        FileNotFoundError: if there is no such file, or a folder lacks one of its three files.
        ValueError: if it is not text (see ``decode_text``), or its test or validation part is too short.
    """
    if place.is_dir():
        parts = [_penn(place, kind) for kind in PENN]
    elif place.is_file():
        whole = decode_text(place.read_bytes(), str(place))
        if (ends := whole.count("\r\n")) and ends == whole.count("\n"):
            log.info(
                f"text={place}: its {ends:,} lines end in two characters, \\r\\n; dos2unix {place} makes it one"
            )
        first, second = (round(len(whole) * share) for share in (SHARES[0], SHARES[0] + SHARES[1]))
        parts = [whole[:first], whole[first:second], whole[second:]]
    elif place.exists():
        raise ValueError(
            f"text={place}: a pipe or a device can be read once only, and a resumed run reads its text again; "
            "write it to a file"
        )
    else:
        raise FileNotFoundError(f"text={place}: no such file or folder")
    if (least := min(map(len, parts))) < 2:
        raise ValueError(f"text={place}: too short; its smallest part has {least} characters")
    alphabet = "".join(sorted(set("".join(parts))))
    places = {character: n for n, character in enumerate(alphabet)}
    train, valid, test = (torch.tensor([places[c] for c in part]) for part in parts)
    return Text(train, valid, test, alphabet)


def _penn(folder: Path, kind: str) -> str:
    name, md5, symbols = PENN[kind]
    path = folder / name
    if not path.is_file():
        wanted = ", ".join(name for name, *_ in PENN.values())
        raise FileNotFoundError(f"text={folder}: no {name}; a folder must hold Penn Treebank's {wanted}")
    content = path.read_bytes()
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != md5:
        log.info(f"{path} is not the published file (MD5 {found}, not {md5}): do not compare its bits with others'")
    text = "".join(line.strip() + "\n" for line in decode_text(content, str(path)).splitlines())
    if found == md5 and len(text) != symbols:
        raise ValueError(f"{path} gives {len(text)} symbols, not {symbols}")
    return text


class Chars(Task):
    """One-hot characters in, logits of the next one out; each stream reads from its own place, round and round."""

    changing = ("at",)

    def __init__(self, T: int, batch: int, seed: int, text: str | None):
        super().__init__(T, batch, seed)
        if text is None:
            raise ValueError("char-lm needs a text: --task.text FILE, or a folder with Penn Treebank's ptb.*.txt")
        self.text = read(Path(text))
        if batch > (size := len(self.text.train)):
            raise ValueError(
                f"batch={batch}: the training part has {size} characters, and each stream begins at "
                "one of its own; choose a smaller batch, or a longer text"
            )
        for name, part in (("valid", self.text.valid), ("test", self.text.test)):
            if unseen := int((~torch.isin(part, self.text.train.unique())).sum()):
                of = f"{unseen:,} of the {name} part's {len(part):,}"
                log.info(f"text={text}: {of} characters are never seen in training")
        self.few = False
        self.inputs = self.outputs = len(self.text.alphabet)
        places = torch.linspace(0, size, batch + 1)[:-1].long()
        self.at = (places + torch.randint(0, size, (1,), generator=self.random)) % size

    def chunk(self) -> Chunk:
        """Each stream's next T characters; a stream that reaches the end of the text continues at its beginning."""
        train = self.text.train
        symbols = train[(self.at + torch.arange(self.T + 1)[:, None]) % len(train)]
        self.at = (self.at + self.T) % len(train)
        return Chunk(self._one_hot(symbols[:-1]), symbols[1:], torch.ones(self.T))

    def losses(self, out: Tensor, y: Tensor) -> Tensor:
        """Bits."""
        nats = F.cross_entropy(out.flatten(0, 1), y.flatten(), reduction="none")
        return nats.view(y.shape) / math.log(2)

    def evaluate(self, network: Network, test: bool = False) -> dict[str, float]:
        """``validation_bits_per_character`` or ``test_bits_per_character``; each stream starts with an empty state.

        Validation reads a fifth of its part, which is enough for a curve.
        """
        part = self.text.test if test else self.text.valid[: max(len(self.text.valid) // 5, 2)]
        streams = min(STREAMS, max((len(part) - 1) // 2, 1))
        steps = (len(part) - 1) // streams
        if steps * streams < FEW and not self.few:
            self.few = True
            log.info("bits per character rest on %d characters only: a longer text is surer", steps * streams)
        symbols = torch.stack([part[k * steps : k * steps + steps + 1] for k in range(streams)], dim=1)
        bits = self.losses(network(self._one_hot(symbols[:-1])), symbols[1:]).mean().item()
        return {f"{'test' if test else 'validation'}_bits_per_character": bits}

    def _one_hot(self, symbols: Tensor) -> Tensor:
        return F.one_hot(symbols, self.inputs).float()

    def show(self) -> str:
        """The text's beginning, and its alphabet."""
        t = self.text
        begin = "".join(t.alphabet[n] for n in t.train[:300].tolist())
        sizes = ", ".join(f"{len(part):,}" for part in (t.train, t.valid, t.test))
        return f"{begin}\n\n{sizes} characters; {len(t.alphabet)} distinct: {t.alphabet!r}"
