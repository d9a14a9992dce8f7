"""Weighted particles: how many they are worth, and how to make them equal again. Each row is its own population."""

from __future__ import annotations

import torch
from torch import Tensor


def effective_size(log_weights: Tensor) -> Tensor:
    """(sum w)^2 / sum w^2 of log-weights [n, particles], [n]: between 1 and the number of particles."""
    return torch.exp(2 * log_weights.logsumexp(dim=1) - (2 * log_weights).logsumexp(dim=1))


def systematic(log_weights: Tensor, offsets: Tensor, count: int | None = None) -> Tensor:
    """Systematic resampling (Kitagawa 1996): weight w of 1 gets floor or ceil of w * count copies.

    Parameters
    ----------
    log_weights
        [n, particles], not necessarily normalised.
    offsets
        [n], uniform in [0, 1): the one random number of each population.
    count
        New particles of a population; as many as before when None.

    Returns
    -------
    [n, count] int64, ascending: the ancestor of each new particle, all of equal weight.
    """
    particles = log_weights.shape[1]
    count = count or particles
    ends = log_weights.double().softmax(dim=1).cumsum(dim=1)
    ticks = (torch.arange(count, device=ends.device) + offsets.double()[:, None]) / count
    return torch.searchsorted(ends, ticks, right=True).clamp_max(particles - 1)


def choose(log_weights: Tensor, offsets: Tensor) -> Tensor:
    """One particle of each population, drawn by its weight: [n] int64 from [n, particles] and uniforms [n]."""
    ends = log_weights.double().softmax(dim=1).cumsum(dim=1)
    return torch.searchsorted(ends, offsets.double()[:, None], right=True).squeeze(1).clamp_max(ends.shape[1] - 1)
