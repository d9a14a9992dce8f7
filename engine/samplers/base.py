"""What a sampler takes and gives, whatever its method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from engine.jobs import Cancelled

Score = Callable[[Tensor], Tensor]
"""Images [B, 3, H, W] in [0, 1] to scores [B]; differentiable for samplers that follow its gradient. On a CPU several
threads may call it at once."""


@dataclass(frozen=True)
class StepEvent:
    """A sampler's report after one of its steps."""

    step: int
    """Steps done, from 1."""
    steps: int
    """Steps in all."""
    scores: Tensor
    """[n], score of what each sample looks like at this step."""
    images: Callable[[], Tensor]
    """What each sample looks like at this step, [n, 3, H, W] in [0, 1]; made only when called."""


OnStep = Callable[[StepEvent], bool | None]
"""Called after each step; returning False, or raising `Cancelled`, ends the sampling."""


@dataclass(frozen=True)
class Samples:
    """What a sampler drew."""

    images: Tensor
    """[n, 3, H, W] in [0, 1]."""
    scores: Tensor
    """[n], score of each image."""
    trace: Tensor
    """[steps, n], score at each step."""


class Sampler(Protocol):
    """Draws images that a score likes."""

    def sample(self, score: Score, n: int, seed: int = 0, on_step: OnStep | None = None) -> Samples:
        """Draw n images.

        Parameters
        ----------
        score
            What the images should excite.
        n
            Number of images.
        seed
            Image i depends on (seed, i) alone: it is the same in any batch.
        on_step
            Hears of every step and may cancel.

        Raises
        ------
        Cancelled
            If `on_step` said so.
        """


def sample_generators(seed: int, n: int) -> list[torch.Generator]:
    """One CPU generator for each of n samples, independent of each other and of every other seed's."""
    states = [int(np.random.SeedSequence((seed, i)).generate_state(1, np.uint64)[0] >> 1) for i in range(n)]
    return [torch.Generator("cpu").manual_seed(state) for state in states]


def announce(on_step: OnStep | None, event: StepEvent) -> None:
    """Report a step; raises `Cancelled` when the listener returns False."""
    if on_step is not None and on_step(event) is False:
        raise Cancelled
