"""Cut a network that you did not write, by the names of its modules, in three lines."""

import torch
import torch.nn.functional as F
from torch import nn

from synthgrad import decouple
from synthgrad.models import MLP


def train(steps: int = 200) -> tuple[float, dict[str, float]]:
    torch.manual_seed(0)
    x = torch.randn(512, 20)
    y = (x[:, :10].sum(1) > x[:, 10:].sum(1)).long()
    net = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2))

    cut = decouple(net, {"1": MLP(32, context=2), "3": MLP(32, context=2)})
    optimizer = torch.optim.Adam([*net.parameters(), *cut.parameters()], lr=3e-3)

    for _ in range(steps):
        with cut.context(y):
            loss = F.cross_entropy(net(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    with cut.context(y):  # how good are the synthetic gradients, beside backprop's?
        quality = cut.quality(lambda: F.cross_entropy(net(x), y))
    cut.remove()  # the trained net, without interfaces
    return F.cross_entropy(net(x), y).item(), {name: q.cosine for name, q in quality.items()}


if __name__ == "__main__":
    loss, cosines = train()
    print(f"loss {loss:.3f}", *(f"cosine at {name} {cosine:.2f}" for name, cosine in cosines.items()))
