"""Compare synthetic gradients with the true ones, on a probe batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from synthgrad.interface.interface import Interface


@dataclass(frozen=True)
class Quality:
    """The agreement of a synthetic gradient δ̂ with the true gradient δ, both flattened over the batch."""

    cosine: float
    """⟨δ̂, δ⟩ / (‖δ̂‖‖δ‖); 1 is the right direction, 0 means no information (or δ̂ is zero)."""
    sign_agreement: float
    """Share of the elements with δ ≠ 0 whose sign is right; 0.5 is chance."""
    norm_ratio: float
    """‖δ̂‖ / ‖δ‖; 1 is the right size."""
    relative_error: float
    """‖δ̂ - δ‖ / ‖δ‖; 0 is perfect, 1 is that of δ̂ = 0."""


def compare(synthetic: Float[Tensor, "*shape"], true: Float[Tensor, "*shape"]) -> Quality:
    """Compare one synthetic gradient with the true one.

    Args:
        synthetic: δ̂, any shape.
        true: δ, the same shape and units.

    Returns:
        Four numbers; NaN where δ is zero or empty.

    Raises:
        ValueError: if the shapes differ.
    """
    if synthetic.shape != true.shape:
        raise ValueError(f"δ̂ has shape {tuple(synthetic.shape)} and δ {tuple(true.shape)}; they must be the same")
    a, b = synthetic.detach().double().flatten(), true.detach().double().flatten()
    size_a, size_b = a.norm(), b.norm()
    nonzero = b != 0
    return Quality(
        cosine=((a @ b) / (size_a * size_b)).item() if size_a > 0 else 0.0 * size_b.item(),
        sign_agreement=(a.sign() == b.sign())[nonzero].double().mean().item(),
        norm_ratio=(size_a / size_b).item(),
        relative_error=((a - b).norm() / size_b).item(),
    )


def probe(
    interfaces: Mapping[str, Interface], loss: Callable[[], Tensor], *modules: nn.Module
) -> dict[str, Quality]:
    """Compare each interface's synthetic gradient with backprop's; this changes no state.

    Args:
        interfaces: by name.
        loss: runs the network forwards *through the fused interfaces* (``fused``, or a net that was
            ``decouple``d) and returns its loss, with the batch size and the reduction of training: δ̂ is in the
            units of the gradients that M was taught.
        modules: modules whose buffers (batch norm's statistics) and modes are restored afterwards.

    Returns:
        A ``Quality`` for each interface that was called (in ``eval()`` a ``decouple``d net calls none) on a message
        that requires grad and on which the loss depends. After several calls it is that of the last one.
    """
    with _restored(*modules, *interfaces.values()):
        with ExitStack() as stack:
            # One interface may have several names.
            recorded = {i: stack.enter_context(i.recording()) for i in dict.fromkeys(interfaces.values())}
            with torch.enable_grad():
                value = loss()
        last = {name: recorded[i][-1] for name, i in interfaces.items() if recorded[i]}
        seen = {name: (h, context) for name, (h, context) in last.items() if h.requires_grad}
        if not seen:
            return {}
        gradients = torch.autograd.grad(value, [h for h, _ in seen.values()], allow_unused=True)
        return {
            name: compare(interfaces[name].synthetic_gradient(h, context), gradient)
            for (name, (h, context)), gradient in zip(seen.items(), gradients, strict=True)
            if gradient is not None
        }


@contextmanager
def _restored(*modules: nn.Module) -> Iterator[None]:
    """Restore buffers, modes and the random state after the block, also after an exception."""
    saved = [(buffer, buffer.clone()) for module in modules for buffer in module.buffers()]
    modes = [(each, each.training) for module in modules for each in module.modules()]
    try:
        with torch.random.fork_rng():
            yield
    finally:
        with torch.no_grad():
            for buffer, value in saved:
                buffer.copy_(value)
        for module, training in modes:
            module.training = training
