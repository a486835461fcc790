"""A recurrent core with a linear read-out."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

CELLS: dict[str, Any] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


class Core(nn.Module):
    """``core(x, state)``: outputs at every step and the state after the last one.

    Args:
        cell: rnn (tanh), gru or lstm.
        inputs: numbers per step that it sees.
        units: of each layer.
        outputs: numbers per step that the read-out gives.
        layers: how many.
    """

    def __init__(self, cell: str, inputs: int, units: int, outputs: int, layers: int = 1):
        super().__init__()
        self.core = CELLS[cell](inputs, units, layers)
        self.read_out = nn.Linear(units, outputs)

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Run over x of shape (steps, batch, inputs); the state's form is torch's own."""
        out, state = self.core(x, state)
        return self.read_out(out), state
