"""Three networks, three clocks: how many of the last four bits were ones? Only the judge ever gets the answer."""

import torch
from torch import nn

from synthgrad import Clocks, Interface, Tick
from synthgrad.models import MLP


class Net(nn.Module):
    def __init__(self, inputs: int, receiver: str | None = None):
        super().__init__()
        self.cell, self.answer, self.receiver = nn.GRUCell(inputs, 16), nn.Linear(16, 1), receiver

    def forward(self, inbox, state, data):
        bit, count = data
        state = self.cell(torch.cat([m for messages in inbox.values() for m in messages] or [bit], dim=1), state)
        if self.receiver:
            return Tick(state, sends={self.receiver: state})
        loss = (self.answer(state) - count).square().mean()
        return Tick(state, loss=loss, out=loss.item())


def train(steps: int = 5000) -> float:
    torch.manual_seed(0)
    clocks, names, nets = Clocks(), ("eyes", "counter", "judge"), (Net(1, "counter"), Net(32, "judge"), Net(32))
    for k, net in enumerate(nets):  # they tick at every step, at every 2nd, at every 4th
        incoming = Interface(MLP(16, hidden=32)) if k else None  # its M learns when the receiver does, and faster
        models = {"params": incoming.parameters() if incoming else [], "lr": 3e-3, "betas": (0.5, 0.99)}
        clocks.add(names[k], net, every=2**k, optimizer=torch.optim.Adam([{"params": net.parameters()}, models]))
        if incoming:
            clocks.connect(names[k - 1], names[k], incoming)
    stream, bits = clocks.stream(steps), torch.randint(2, (steps, 64, 1)).float()
    outs = [stream.step((bits[t], bits[max(t - 3, 0) : t + 1].sum(0) - 2)) for t in range(steps)]
    return sum(out["judge"] for out in outs[3::4][-100:]) / 100


if __name__ == "__main__":
    print(f"squared error {train():.3f} (1.0 for who knows nothing)")
