"""EnergyDPS: energy-guided diffusion posterior sampling (paper 000, Algorithm 1).

Each reverse step predicts the clean image, asks the score for its gradient there, and moves the next state along it:
x_{i-1} = x'_{i-1} + zeta_i beta grad s(x0(x_i)). This tilts the prior by exp(beta s) without training anything.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from engine.errors import BlindspotError
from engine.priors.base import Prior
from engine.samplers.base import OnStep, Samples, Score, StepEvent, announce, sample_generators
from engine.samplers.look import GUIDANCES, Look, Observer, require_finite
from engine.samplers.memory import Pieces
from engine.samplers.robust import RobustScore, View
from engine.samplers.thinning import Crowd, Thinning

GRADIENTS = ("eps", "unit", "raw")
TINY = 1e-20
GLANCE = 4
"""Steps between two looks at states that are not guided."""
REMEDY = "lower the strength or use gradient 'eps'"


@dataclass(frozen=True)
class EnergyDPS:
    """Samples of a diffusion prior, tilted towards a differentiable score.

    Raises
    ------
    BlindspotError
        For settings that make no sense.
    """

    prior: Prior
    """The distribution that the samples stay close to."""
    steps: int = 50
    """Reverse steps."""
    strength: float = 0.3
    """beta; 0 draws from the prior alone, negative values avoid the score. With `raw` it is the tilt's inverse
    temperature, with `unit` and `eps` the size of a push."""
    gradient: Literal["eps", "unit", "raw"] = "eps"
    """How the gradient g of a sample is scaled. `raw`: sigma^2 g, the tilt of classifier guidance (Dhariwal & Nichol
    2021). `unit`: sigma g / |g|. `eps`: sigma |eps| g / |g|, so that a strength is a share of the step's own noise,
    whatever the score's unit and the state's size; |eps| counts as at most sqrt(dim), its size for true noise, or else
    a strong push, which the denoiser takes for noise, would feed itself. sigma is the reverse step's standard
    deviation."""
    guidance: Literal["full", "light"] = "full"
    """`full` goes back through the denoiser, as Algorithm 1 does; `light` stops at the predicted clean state, which is
    faster, needs less memory and is less exact."""
    every: int = 1
    """Only every so manieth step is guided, so many times as strongly; the others cost a denoising and no more."""
    cap: float | None = None
    """A sample whose score exceeds this is not guided at that step (paper 000, J.2)."""
    window: tuple[float, float] = (0.0, 1.0)
    """The part of the way, from noise (0) to image (1), that is guided."""
    views: tuple[View, ...] = ()
    """Views of the predicted image that share the score on the way, see `RobustScore`; none: the image as it is."""
    thinning: Thinning | None = None
    """How a sample begins as many states; None: as one, guided from the start, as Algorithm 1 has it."""
    bf16: bool = False
    """Compute in bfloat16; the final images and their scores are in full precision all the same."""
    checkpointing: bool = False
    """Recompute activations on the gradient's way back: less memory, more time."""
    together: int | None = 1
    """Samples that are guided in one go, None for all: for notebooks and benchmarks. More than 1 is faster on an
    accelerator, but then what a sample becomes depends on how many are drawn: batches round differently, and guidance
    makes another image of it."""

    def __post_init__(self) -> None:
        if self.gradient not in GRADIENTS or self.guidance not in GUIDANCES:
            raise BlindspotError(
                f"Guidance {self.guidance!r} with gradient {self.gradient!r} is unknown: "
                f"choose from {', '.join(GUIDANCES)} and {', '.join(GRADIENTS)}."
            )
        if not math.isfinite(self.strength):
            raise BlindspotError(f"The strength must be a finite number, not {self.strength}.")
        if self.every < 1:
            raise BlindspotError(f"Every step or every n-th is guided, not every {self.every}.")
        if self.together is not None and self.together < 1:
            raise BlindspotError(f"At least 1 sample is guided at a time, not {self.together}.")
        if not 0 <= self.window[0] < self.window[1] <= 1:
            raise BlindspotError(f"The guidance window {self.window} must be two growing numbers between 0 and 1.")

    def sample(self, score: Score, n: int, seed: int = 0, on_step: OnStep | None = None) -> Samples:
        """Draw n images that the score likes.

        Parameters
        ----------
        score
            Differentiable, images [n, 3, H, W] in [0, 1] to [n].
        n
            Number of images.
        seed
            Image i depends on (seed, i) alone: it is the same in any batch.
        on_step
            Hears of every step and may cancel.

        Raises
        ------
        BlindspotError
            If n is not positive, the steps do not fit the prior, or the guidance left the real numbers.
        Cancelled
            If `on_step` said so.
        """
        if n < 1:
            raise BlindspotError(f"{n} samples were asked for: ask for at least 1.")
        levels = [*self.prior.timesteps(self.steps).tolist(), -1]
        guide = RobustScore(score, self.views) if self.views else score
        pieces = Pieces(group=self.together)
        observer = Observer(self.prior, guide, self.guidance, self.bf16, self.checkpointing, pieces)
        generators = sample_generators(seed, n)
        state, trace = self._begin(score, observer, generators, levels, on_step)
        begun, look = len(trace), None
        for index, (t, t_prev) in list(enumerate(itertools.pairwise(levels)))[begun:]:
            if look is None or (index - begun) % self.every == 0:
                look = observer.look(state, t, self._guided(index, t_prev))
            else:
                look = look._replace(prediction=observer.denoise(state, t), gradient=None)
            with torch.no_grad():
                state = self.prior.step(look.prediction, t, t_prev, state, generators)
                if look.gradient is not None:
                    state = state + self._push(look, self.prior.sigma(t, t_prev))
            require_finite(state, look.scores, f"at step {index + 1} of {self.steps} {self._how()}", REMEDY)
            trace.append(look.scores)
            images = look.images
            announce(on_step, StepEvent(index + 1, self.steps, look.scores, lambda images=images: images))
        images, scores = observer.finish(state, score)
        return Samples(images, scores, torch.stack(trace))

    def _begin(
        self,
        score: Score,
        observer: Observer,
        generators: list[torch.Generator],
        levels: list[int],
        on_step: OnStep | None,
    ) -> tuple[Tensor, list[Tensor]]:
        """States [n, *shape] to guide, and the scores [n] of each step that led to them."""
        trace: list[Tensor] = []
        if self.thinning is None:
            return self.prior.noise(generators), trace
        crowd, images = Crowd(self.prior, score, self.thinning, generators, self.bf16, self.together), None

        def seen(step: int, x0: Tensor) -> None:
            nonlocal images
            if images is None or step % GLANCE == 0:
                images, scores = observer.finish(x0, score)
                trace.append(scores)
            else:
                trace.append(trace[-1])
            shown = images
            announce(on_step, StepEvent(step, self.steps, trace[-1], lambda: shown))

        crowd.walk(levels, seen)
        return crowd.state, trace

    def _guided(self, index: int, t_prev: int) -> bool:
        """Whether this step follows the score; the last never does, as no later step could clean up after it."""
        progress = index / max(1, self.steps - 1)
        return self.strength != 0 and t_prev >= 0 and self.window[0] <= progress <= self.window[1]

    def _how(self) -> str:
        return f"with strength {self.strength:g} and gradient {self.gradient!r}"

    def _push(self, look: Look, sigma: float) -> Tensor:
        """zeta_i beta grad s, [n, *shape], zero for samples beyond the cap."""
        gradient = look.gradient
        if self.gradient == "raw":
            push = sigma**2 * gradient
        else:
            push = sigma * gradient / _norm(gradient).clamp_min(TINY)
            if self.gradient == "eps":
                push = push * _norm(look.prediction.eps).clamp_max(math.sqrt(gradient[0].numel()))
        if self.cap is not None:
            push = push * _per_sample(look.scores <= self.cap, push)
        return self.strength * self.every * push


def _per_sample(values: Tensor, like: Tensor) -> Tensor:
    """[n] to [n, 1, 1, ...], as many axes as `like`."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def _norm(values: Tensor) -> Tensor:
    """Euclidean norm of each sample, [n, 1, 1, ...]; each for itself, so that it rounds the same in any batch."""
    return _per_sample(torch.stack([row.norm() for row in values]), values)
