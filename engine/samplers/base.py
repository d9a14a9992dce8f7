"""What a sampler takes and returns, whatever its method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from engine.errors import BlindspotError
from engine.jobs import Cancelled

Score = Callable[[Tensor], Tensor]
"""Images [n, 3, height, width] in [0, 1] to scores [n]; differentiable for samplers that follow its gradient. On a CPU
several threads may call it at once."""


@dataclass(frozen=True)
class StepEvent:
    """A sampler's report after one of its steps."""

    step: int
    """Steps done, from 1."""
    steps: int
    """Steps in all."""
    scores: Float[Tensor, " n"]
    """Score of what each sample looks like at this step."""
    images: Float[Tensor, "n 3 height width"]
    """What each sample looks like at this step, in [0, 1]."""


OnStep = Callable[[StepEvent], bool | None]
"""Called after every step; returning False, or raising `Cancelled`, ends the sampling."""


class TiltEstimate(NamedTuple):
    """What weighted particles say of the tilt q = p exp(beta s) / Z that samples were drawn from."""

    beta: float
    """Inverse temperature of the tilt."""
    log_partition: float
    """log Z = log E_p exp(beta s), from the mean of the filters' unbiased estimates of Z."""
    standard_error: float
    """Of log Z, over the filters; NaN for a single one."""
    effective_particles: float
    """How many equally weighted particles would say as much."""
    particles: int
    """Particles of all filters."""
    kl_to_prior: float
    """KL(q | p) = beta E_q s - log Z in nats."""


@dataclass(frozen=True)
class Samples:
    """What a sampler drew."""

    images: Float[Tensor, "n 3 height width"]
    """In [0, 1]."""
    scores: Float[Tensor, " n"]
    """Score of each image."""
    trace: Float[Tensor, "steps n"]
    """Score at each step."""
    tilt: TiltEstimate | None = None
    """Of samplers whose law tends to a tilt of the prior."""
    states: Float[Tensor, "n *shape"] | None = None
    """The prior's clean states that the images were decoded from, of samplers that say them."""


class Sampler(Protocol):
    """Draws images with a high score."""

    def sample(self, score: Score, n: int, seed: int = 0, on_step: OnStep | None = None, first: int = 0) -> Samples:
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
            Called after every step; may cancel.
        first
            Number of the first image: images first .. first + n - 1 are drawn.

        Raises
        ------
        BlindspotError
            If n is not positive, the settings do not fit the models, or a sample became infinite.
        Cancelled
            If `on_step` returned False.
        """


def prepared(sampler: Sampler, score: Score, seed: int = 0, on_step: OnStep | None = None) -> Sampler:
    """Return a sampler that does what it does once for a score and seed now, not again for each batch of images."""
    prepare: Callable[..., Sampler] | None = getattr(sampler, "prepare", None)
    return sampler if prepare is None else prepare(score, seed, on_step)


def sample_generators(seed: int, n: int, first: int = 0) -> list[torch.Generator]:
    """Return one CPU generator for each of n samples, numbered from `first` on.

    They are independent of each other and of every other seed's.

    Raises
    ------
    BlindspotError
        If n is not positive.
    """
    require_count(n)
    sequences = [np.random.SeedSequence((seed, i)) for i in range(first, first + n)]
    states = [int(sequence.generate_state(1, np.uint64)[0] >> 1) for sequence in sequences]
    return [torch.Generator("cpu").manual_seed(state) for state in states]


def uniforms(generators: list[torch.Generator]) -> Float[Tensor, " n"]:
    """Draw one number in [0, 1) from each generator."""
    return torch.stack([torch.rand((), generator=generator) for generator in generators])


def announce(on_step: OnStep | None, event: StepEvent) -> None:
    """Report a step; raises `Cancelled` when the callback returns False."""
    if on_step is not None and on_step(event) is False:
        raise Cancelled


def require_count(n: int) -> None:
    """Raise `BlindspotError` unless at least one sample was asked for."""
    if n < 1:
        raise BlindspotError(f"{n} samples were asked for: ask for at least 1.")


def require_finite(state: Float[Tensor, "n ..."], scores: Float[Tensor, " n"], when: str, remedy: str) -> None:
    """Raise `BlindspotError` if a sample is infinite or not a number; `when` and `remedy` complete the sentence."""
    finite = state.flatten(1).isfinite().all(dim=1) & scores.isfinite()
    if not finite.all():
        raise BlindspotError(f"Sample {int((~finite).nonzero()[0]) + 1} became infinite {when}: {remedy}.")
