"""A chain of parts: each is updated, and its activations freed, before the next one runs."""

import torch
import torch.nn.functional as F
from torch import nn

from synthgrad import Interface, unlocked
from synthgrad.models import MLP


def train(steps: int = 200, depth: int = 4) -> float:
    torch.manual_seed(0)
    x = torch.randn(512, 20)
    y = (x[:, :10].sum(1) > x[:, 10:].sum(1)).long()
    sizes = [20, *[32] * (depth - 1)]
    parts = [nn.Sequential(nn.Linear(size, 32), nn.ReLU()) for size in sizes[: depth - 1]] + [nn.Linear(32, 2)]
    interfaces = [Interface(MLP(32, hidden=16, context=2)) for _ in parts[1:]]
    # Part k's backward pass teaches the model on the edge below it: they share an optimizer.
    learning = [parts[0], *(nn.ModuleList(pair) for pair in zip(interfaces, parts[1:], strict=True))]
    optimizers = [torch.optim.Adam(module.parameters(), lr=3e-3) for module in learning]

    for _ in range(steps):
        for k, loss in unlocked(parts, interfaces, x, lambda out: F.cross_entropy(out, y), context=y):
            optimizers[k].zero_grad()
            loss.backward()
            optimizers[k].step()
    return F.cross_entropy(nn.Sequential(*parts)(x), y).item()


if __name__ == "__main__":
    print(f"loss {train():.3f}")
