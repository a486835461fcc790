"""MNIST, a row of pixels at a time; the label is the target after the last row."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from synthgrad_lab.data import load
from synthgrad_lab.recurrent.tasks.base import Episodes, Network

ROWS = 28


class Rows(Episodes):
    """28 steps of 28 pixels, ten logits; only the last step has a loss."""

    inputs, outputs = 28, 10

    def __init__(self, T: int, batch: int, seed: int, data_dir: str | None = None):
        super().__init__(T, batch, seed)
        self.data = load("mnist", data_dir)

    def begin(self) -> tuple[Tensor, Tensor, Tensor]:
        """New random images."""
        drawn = torch.randint(0, len(self.data.train_x), (self.batch,), generator=self.random)
        counts = torch.zeros(ROWS)
        counts[-1] = 1
        y = F.one_hot(self.data.train_y[drawn], self.outputs).float()
        return _steps(self.data.train_x[drawn]), y.expand(ROWS, -1, -1), counts

    def losses(self, out: Tensor, y: Tensor) -> Tensor:
        """Cross-entropy in nats."""
        return -(out.log_softmax(-1) * y).sum(-1)

    def evaluate(self, network: Network, test: bool = False) -> dict[str, float]:
        """``validation_error`` or ``test_error``, in percent."""
        kind = "test" if test else "validation"
        x, y = getattr(self.data, f"{kind}_x"), getattr(self.data, f"{kind}_y")
        said = torch.cat([network(_steps(part))[-1].argmax(1) for part in x.split(2500)])
        return {f"{kind}_error": 100 * (said != y).sum().item() / len(y)}

    def show(self) -> str:
        """One digit, a row per step."""
        shades = " .:*#"
        image = (self.data.train_x[0].view(ROWS, ROWS).clamp(0, 1) * (len(shades) - 1) + 0.5).int().tolist()
        rows = [f"step {t:2d}  " + "".join(shades[pixel] for pixel in row) for t, row in enumerate(image)]
        return "\n".join([*rows, f"label: {int(self.data.train_y[0])}"])


def _steps(images: Tensor) -> Tensor:
    return images.reshape(len(images), ROWS, ROWS).transpose(0, 1)
