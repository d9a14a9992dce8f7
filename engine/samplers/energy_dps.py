"""EnergyDPS: energy-guided diffusion posterior sampling (arXiv:2605.17504, Algorithm 1), and what we made of it.

Each reverse step predicts the clean image, asks the score for its gradient there, and moves the next state along it:
x_{i-1} = x'_{i-1} + zeta_i beta grad_{x_i} s(x0(x_i)). With gradient `raw` and one candidate this is the algorithm as
printed (`energydps`). It approximates the tilt p exp(beta s): the score of a predicted image stands in for the expected
score of the image to come. `energy-guidance` scales each push to a share of the step's own noise and begins as many
candidates. It reaches scores that the raw gradient does not, but its strength is no tilt's beta: a push does not change
when s becomes 4 s.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from engine.errors import BlindspotError
from engine.priors.base import DiffusionPrior
from engine.samplers.base import OnStep, Samples, Score, StepEvent, announce, require_finite, sample_generators
from engine.samplers.candidates import CandidateSelection, CandidateStates
from engine.samplers.execution import MicroBatches, Together, samples_together
from engine.samplers.guidance import GUIDANCES, DenoisedState, GuidedDenoiser

GRADIENTS = ("eps", "unit", "raw")
TINY = 1e-20
PREVIEW_INTERVAL = 4
"""Steps between two evaluations of candidates, which are not guided."""


@dataclass(frozen=True)
class EnergyDPS:
    """Samples of a diffusion prior, tilted towards a differentiable score.

    Raises
    ------
    BlindspotError
        For settings that make no sense.
    """

    prior: DiffusionPrior
    """The distribution that the samples stay close to."""
    steps: int = 50
    """Reverse steps."""
    strength: float = 0.3
    """beta; 0 draws from the prior alone, negative values avoid the score. With `raw` it is the tilt's inverse
    temperature, with `unit` and `eps` the size of a push, whatever the score's unit."""
    gradient: Literal["eps", "unit", "raw"] = "eps"
    """How the gradient g of a sample is scaled. `raw`: zeta g, as in Algorithm 1, where zeta = sigma^2 is classifier
    guidance (Dhariwal & Nichol 2021). `unit`: sigma g / |g|. `eps`: sigma |eps| g / |g|, so that a strength is a share
    of the step's own noise, whatever the score's unit and the state's size; |eps| counts as at most sqrt(dim), its size
    for true noise, or else a strong push, which the denoiser takes for noise, would feed itself. sigma is the reverse
    step's standard deviation."""
    zeta: float | None = None
    """For gradient `raw`: a step size zeta_i that is the same at every step; None: sigma_i^2."""
    guidance: Literal["full", "light"] = "full"
    """`full` goes back through the denoiser, as Algorithm 1 does; `light` stops at the predicted clean state, which is
    faster, needs less memory and is less exact."""
    guidance_interval: int = 1
    """Only every n-th step is guided, n times as strongly; the others cost a denoising and no more."""
    score_cap: float | None = None
    """A sample whose score exceeds this is not guided at that step (arXiv:2605.17504, appendix J.2)."""
    guidance_window: tuple[float, float] = (0.0, 1.0)
    """The part of the way, from noise (0) to image (1), that is guided."""
    selection: CandidateSelection | None = None
    """How a sample starts as many candidates; None: as one, guided from the start, as in Algorithm 1."""
    bf16: bool = False
    """Compute in bfloat16; the final images and their scores are in full precision all the same."""
    checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    together: Together = "auto"
    """Samples that are guided in one go. More than 1 is faster on an accelerator, but then what a sample becomes
    depends on how many are drawn: batches round differently, and guidance makes another image of it."""

    def __post_init__(self) -> None:
        if self.gradient not in GRADIENTS or self.guidance not in GUIDANCES:
            raise BlindspotError(
                f"Guidance {self.guidance!r} with gradient {self.gradient!r} is unknown: "
                f"choose from {', '.join(GUIDANCES)} and {', '.join(GRADIENTS)}."
            )
        if not math.isfinite(self.strength):
            raise BlindspotError(f"The strength must be a finite number, not {self.strength}.")
        if self.zeta is not None and not (math.isfinite(self.zeta) and self.zeta > 0 and self.gradient == "raw"):
            raise BlindspotError(
                f"The step size zeta must be a number above 0 and goes with gradient 'raw', not {self.zeta} with "
                f"{self.gradient!r}."
            )
        if self.guidance_interval < 1:
            raise BlindspotError(f"Every step or every n-th is guided, not every {self.guidance_interval}.")
        if isinstance(self.together, int) and self.together < 1:
            raise BlindspotError(f"At least 1 sample is guided at a time, not {self.together}.")
        if not 0 <= self.guidance_window[0] < self.guidance_window[1] <= 1:
            raise BlindspotError(
                f"The guidance window {self.guidance_window} must be two growing numbers between 0 and 1."
            )

    def sample(self, score: Score, n: int, seed: int = 0, on_step: OnStep | None = None, first: int = 0) -> Samples:
        """Draw n images with a high score, which must be differentiable; arguments and errors as in `Sampler.sample`"""
        generators = sample_generators(seed, n, first)
        levels = [*self.prior.timesteps(self.steps).tolist(), -1]
        batches = MicroBatches(group=samples_together(self.together, self.prior.device))
        denoiser = GuidedDenoiser(self.prior, score, self.guidance, self.bf16, self.checkpointing, batches)
        state, trace = self._start(denoiser, generators, levels, on_step)
        begun, seen = len(trace), None
        for index, (t, t_prev) in list(enumerate(itertools.pairwise(levels)))[begun:]:
            if seen is None or (index - begun) % self.guidance_interval == 0:
                seen = denoiser.evaluate(state, t, self._guided(index, t_prev))
            else:
                seen = seen._replace(prediction=denoiser.denoise(state, t), gradient=None)
            with torch.no_grad():
                state = self.prior.step(seen.prediction, t, t_prev, state, generators)
                if seen.gradient is not None:
                    state = state + self._push(seen, seen.gradient, self.prior.sigma(t, t_prev))
            when = f"at step {index + 1} of {self.steps} with strength {self.strength:g} and gradient {self.gradient!r}"
            require_finite(state, seen.scores, when, "lower the strength or use gradient 'eps'")
            trace.append(seen.scores)
            announce(on_step, StepEvent(index + 1, self.steps, seen.scores, seen.images))
        images, scores = denoiser.decode(state)
        return Samples(images, scores, torch.stack(trace), states=state)

    def _start(
        self,
        denoiser: GuidedDenoiser,
        generators: list[torch.Generator],
        levels: list[int],
        on_step: OnStep | None,
    ) -> tuple[Tensor, list[Tensor]]:
        """States [n, *shape] to guide, and the scores [n] of each step that led to them."""
        trace: list[Tensor] = []
        if self.selection is None:
            return self.prior.noise(generators), trace
        candidates = CandidateStates(
            self.prior, denoiser.score, self.selection, generators, self.bf16, denoiser.batches.group
        )  # fmt: skip
        images: Tensor | None = None

        def on_prediction(step: int, x0: Tensor) -> None:
            nonlocal images
            if images is None or step % PREVIEW_INTERVAL == 0:
                images, scores = denoiser.decode(x0)
                trace.append(scores)
            else:
                trace.append(trace[-1])
            announce(on_step, StepEvent(step, self.steps, trace[-1], images))

        candidates.run(levels, on_prediction)
        return candidates.state, trace

    def _guided(self, index: int, t_prev: int) -> bool:
        """Whether this step follows the score.

        The last one has no noise, so that a push there has no size, unless a constant zeta gives it one.
        """
        progress = index / max(1, self.steps - 1)
        moves = t_prev >= 0 or self.zeta is not None
        return self.strength != 0 and moves and self.guidance_window[0] <= progress <= self.guidance_window[1]

    def _push(self, seen: DenoisedState, gradient: Tensor, sigma: float) -> Tensor:
        """zeta_i beta grad s, [n, *shape], zero for samples beyond the cap."""
        if self.gradient == "raw":
            push = (sigma**2 if self.zeta is None else self.zeta) * gradient
        else:
            push = sigma * gradient / _norm(gradient).clamp_min(TINY)
            if self.gradient == "eps":
                push = push * _norm(seen.prediction.eps).clamp_max(math.sqrt(gradient[0].numel()))
        if self.score_cap is not None:
            push = push * _per_sample(seen.scores <= self.score_cap, push)
        return self.strength * self.guidance_interval * push


def _per_sample(values: Tensor, like: Tensor) -> Tensor:
    """[n] to [n, 1, 1, ...], as many axes as `like`."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def _norm(values: Tensor) -> Tensor:
    """Euclidean norm of each sample, [n, 1, 1, ...]; each on its own, so that it rounds the same in any batch."""
    return _per_sample(torch.stack([row.norm() for row in values]), values)
