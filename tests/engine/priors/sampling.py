"""Unguided samples of a prior."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch

from engine.priors.base import DiffusionPrior


def generators(*seeds: int) -> list[torch.Generator]:
    """One CPU generator for each seed."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@torch.no_grad()
def run(prior: DiffusionPrior, seeds: Sequence[int], steps: int) -> torch.Tensor:
    """Clean states [len(seeds), *shape], row i drawn from seed i."""
    sources = generators(*seeds)
    state = prior.noise(sources)
    for t, t_prev in pairwise([*prior.timesteps(steps).tolist(), -1]):
        state = prior.step(prior.denoise(state, t), t, t_prev, state, sources)
    return state
