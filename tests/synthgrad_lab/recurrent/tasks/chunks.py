"""Chunks put together, and networks made of probabilities."""

import torch

BATCH = 3


def steps(task, count):
    """Chunks of at least ``count`` steps; they end with an episode, if there are episodes."""
    chunks = []
    while sum(len(chunk.x) for chunk in chunks) < count or (task.episodic and not chunks[-1].ends):
        chunks.append(task.chunk())
    return chunks


def joined(chunks):
    return [torch.cat([getattr(chunk, name) for chunk in chunks]) for name in ("x", "y", "counts")]


def logits(probability):
    return torch.logit(probability.double().clamp(1e-12, 1 - 1e-12)).float()
