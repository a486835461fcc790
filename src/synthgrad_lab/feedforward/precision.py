"""In which number format a module computes, and how its images lie in memory."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import nn

from synthgrad_lab.feedforward.settings import Settings

M = TypeVar("M", bound=nn.Module)


class Autocast(nn.Module):
    """A module whose matrix products and convolutions run in bfloat16, its weights staying as they are.

    In single precision it changes nothing, so that a checkpoint fits machines with bfloat16 and without.
    """

    def __init__(self, module: nn.Module, device: str, enabled: bool = True):
        super().__init__()
        self.module, self.kind, self.enabled = module, torch.device(device).type, enabled

    def forward(self, *inputs: Any) -> Any:
        """What the module answers."""
        with torch.autocast(self.kind, torch.bfloat16, enabled=self.enabled):
            return self.module(*inputs)


def bf16_is_fast(device: str) -> bool:
    """Whether the processor, or the GPU, has instructions for bfloat16 (on a CPU: AMX or AVX-512 BF16)."""
    if device.startswith("cuda"):
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    probes = [getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("amx_tile", "avx512_bf16")]
    return device == "cpu" and any(probe() for probe in probes if probe)


def precision(s: Settings) -> str:
    """bf16 or fp32: what the settings come to on this machine."""
    return (
        "bf16"
        if s.run.precision == "bf16" or (s.run.precision == "auto" and bf16_is_fast(s.run.device))
        else "fp32"
    )


def prepared(module: nn.Module, s: Settings) -> nn.Module:
    """The module on its device, in the settings' precision; convolutions in channels-last memory."""
    module = module.to(s.run.device)
    if s.net == "cnn":
        # Pixel by pixel is how fast convolutions want it; what they put out then lies in the same way.
        module = module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return module if s.run.precision == "fp32" else Autocast(module, s.run.device, precision(s) == "bf16")
