"""A recurrent net that is trained two steps at a time learns to say a bit again four steps later."""

import torch
import torch.nn.functional as F
from torch import nn

from synthgrad import Interface, RecurrentInterface
from synthgrad.models import MLP

T, DELAY, STREAMS = 2, 4, 64


def train(chunks: int = 1500) -> float:
    torch.manual_seed(0)
    rnn, read_out = nn.RNN(1, 32), nn.Linear(32, 1)
    future = RecurrentInterface(Interface(MLP(32, hidden=32)))
    core = {"params": [*rnn.parameters(), *read_out.parameters()], "lr": 3e-4}
    models = {"params": future.parameters(), "lr": 3e-3, "betas": (0.5, 0.99)}  # M must follow, not average
    optimizer = torch.optim.Adam([core, models])
    bits = torch.randint(2, (chunks * T + DELAY, STREAMS, 1)).float()

    state, losses = None, []
    for k in range(chunks):
        x, y = bits[k * T + DELAY :][:T], bits[k * T :][:T]
        state = future.receive(state)  # a chunk starts: what arrives here teaches M
        out, state = rnn(x, state)
        loss = F.binary_cross_entropy_with_logits(read_out(out), y)
        (loss + future.send(state)).backward()  # it ends: M(state) stands for all later losses
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return sum(losses[-100:]) / 100


if __name__ == "__main__":
    print(f"loss {train():.3f}")
