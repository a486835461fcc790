"""The number format in which a module computes, and the memory order of its images."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from synthgrad_lab.feedforward.settings import Settings


class Autocast(nn.Module):
    """A module whose matrix products and convolutions run in bfloat16; its weights keep their format.

    Where it is not enabled it changes nothing, so that a checkpoint fits machines with and without bfloat16.
    """

    def __init__(self, module: nn.Module, device: str, enabled: bool = True):
        super().__init__()
        self.module, self.kind, self.enabled = module, torch.device(device).type, enabled

    def forward(self, *inputs: Any) -> Any:
        """The module's output."""
        with torch.autocast(self.kind, torch.bfloat16, enabled=self.enabled):
            return self.module(*inputs)


def bf16_is_fast(device: str) -> bool:
    """Whether the processor, or the GPU, has instructions for bfloat16 (on a CPU: AMX or AVX-512 BF16)."""
    if device.startswith("cuda"):
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    probes = [getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("amx_tile", "avx512_bf16")]
    return device == "cpu" and any(probe() for probe in probes if probe)


def precision(s: Settings) -> str:
    """The format on this machine: bf16 or fp32."""
    fast = s.run.precision == "bf16" or (s.run.precision == "auto" and bf16_is_fast(s.run.device))
    return "bf16" if fast else "fp32"


def prepare(module: nn.Module, s: Settings) -> nn.Module:
    """Move a module to its device, in the settings' precision; convolutions in channels-last memory."""
    module = module.to(s.run.device)
    if s.net == "cnn":
        # Convolutions are fastest on images stored pixel by pixel; their outputs are then stored so, too.
        module = module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return module if s.run.precision == "fp32" else Autocast(module, s.run.device, precision(s) == "bf16")
