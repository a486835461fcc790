"""Trainings after some updates, and their weights."""

import torch

from synthgrad_lab.recurrent.training import RecurrentTraining


def weights(module):
    return torch.cat([p.detach().flatten().clone() for p in module.parameters()])


def after(settings, begin=0, end=None, training=None):
    training = training or RecurrentTraining(settings)
    for done in range(begin, end or settings.steps):
        training.step(done)
    return training
