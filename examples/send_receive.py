"""The loop of the README: two parts, each with its own optimizer, the first of which never waits."""

import torch
import torch.nn.functional as F
from torch import nn

from synthgrad import Interface
from synthgrad.models import MLP


def train(steps: int = 200) -> float:
    torch.manual_seed(0)
    x = torch.randn(512, 20)
    y = (x[:, :10].sum(1) > x[:, 10:].sum(1)).long()

    A = nn.Sequential(nn.Linear(20, 32), nn.ReLU())
    B = nn.Linear(32, 2)
    interface = Interface(MLP(32, hidden=16, context=2))
    optimizer_a = torch.optim.Adam(A.parameters(), lr=1e-2)
    optimizer_b = torch.optim.Adam([*B.parameters(), *interface.parameters()], lr=1e-2)

    for _ in range(steps):
        h = A(x)
        interface.send(h, y).backward()  # M(h, y) stands in for the gradient that B has not computed yet
        optimizer_a.step()  # A is updated before B has even run
        optimizer_a.zero_grad()

        loss = F.cross_entropy(B(interface.receive(h, y)), y)
        loss.backward()  # B learns, and M learns from the gradient that arrives at h
        optimizer_b.step()
        optimizer_b.zero_grad()
    return F.cross_entropy(B(A(x)), y).item()


if __name__ == "__main__":
    print(f"loss {train():.3f}")
