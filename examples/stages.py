"""Three stages, each in a process of its own: `python examples/stages.py processes` (or simulated, or ray)."""

import sys

import torch
import torch.nn.functional as F
from torch import nn

from synthgrad import Interface, Stage
from synthgrad.models import MLP
from synthgrad.stages import launch

SIZES = (20, 64, 64, 2)


def data(step):
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(128, 20, generator=generator)
    return x, (x[:, :10].sum(1) > x[:, 10:].sum(1)).long()


def build(k):
    torch.manual_seed(k)
    last = k == 2
    part = nn.Linear(64, 2) if last else nn.Sequential(nn.Linear(SIZES[k], 64), nn.BatchNorm1d(64), nn.ReLU())
    above = None if last else Interface(MLP(64, hidden=32, context=2))
    learns = [*part.parameters(), *(above.parameters() if above else [])]  # the model above is taught here, too
    criterion = F.cross_entropy if last else None
    optimizer = torch.optim.Adam(learns, lr=3e-3)
    return Stage(part=part, optimizer=optimizer, above=above, criterion=criterion, data=data)


def train(on="simulated"):
    return launch(build, stages=3, steps=600, on=on).counters[-1].loss


if __name__ == "__main__":
    print(f"loss of the last steps: {train(*sys.argv[1:2]):.3f}")
