"""The arithmetic of a variance-preserving noise schedule, at any respacing of its steps.

x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps. A diffusers scheduler is only asked for its constants and its levels: its
own `step` is tied to one spacing and keeps state, so that two samplers could not share it.
"""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from engine.errors import BlindspotError

PREDICTIONS = ("epsilon", "v_prediction", "sample")
GUIDABLE = (
    "DDPMScheduler",
    "DDIMScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "LCMScheduler",
)
"""Schedulers whose steps, of first order, are ours."""
NOISELESS = ("DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler")
OTHER_SPACINGS = ("use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas", "use_flow_sigmas")
DATA_DEVIATION = 0.5
"""sigma_data of a consistency model's boundary condition."""


class Prediction(NamedTuple):
    """What a denoiser says about x_t; the first two always satisfy x_t = sqrt(abar) x0 + sqrt(1 - abar) eps."""

    x0: Float[Tensor, "n channels height width"]
    """The posterior mean of the clean state."""
    eps: Float[Tensor, "n channels height width"]
    """The noise that goes with it."""
    spread: Float[Tensor, "n channels height width"] | None = None
    """In [-1, 1], where a learned reverse variance lies between its bounds; None when it is fixed."""


@dataclass(frozen=True)
class Schedule:
    """Constants of a trained denoiser's noise schedule; immutable, so that threads may share it."""

    abar: tuple[float, ...]
    """abar_t for t = 0 .. T - 1, the share of variance that is signal."""
    scheduler: Any
    """The diffusers scheduler that chooses n of the T levels; copied for each choice."""
    prediction: str = "epsilon"
    """What the network's output means: one of `PREDICTIONS`."""
    clip: float | None = None
    """Bound on |x0|, for models in pixel space; None for latents."""
    learned_variance: bool = False
    """The network's output has twice the state's channels and the second half is the variance (`learned_range`)."""
    distilled: int | None = None
    """For a latent consistency model: the number of levels it knows. Its steps add fresh noise to the clean state."""
    boundary: float = 10.0
    """For a latent consistency model: by what the level counts in its boundary condition."""

    @classmethod
    def from_scheduler(cls, scheduler: Any) -> Schedule:
        """Read the constants of any variance-preserving diffusers scheduler.

        Those of `GUIDABLE` also step as ours do: DDPM, Euler ancestral and the SDE of DPM-Solver++ with eta = 1; DDIM,
        Euler and DPM-Solver++, all of first order, with eta = 0. Of others (PNDM, UniPC, Heun ...) only the constants
        are used: their steps of higher order remember states that guidance has since moved.

        Raises
        ------
        BlindspotError
            For a scheduler without `alphas_cumprod` (flow matching), an unknown prediction type or variance, or levels
            that are no trained ones.
        """
        from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

        name, config = type(scheduler).__name__, scheduler.config
        prediction = config.get("prediction_type", "epsilon")
        if getattr(scheduler, "alphas_cumprod", None) is None or prediction not in PREDICTIONS:
            raise BlindspotError(
                f"The scheduler {name} with prediction type {prediction!r} cannot serve as a prior: "
                f"use {', '.join(GUIDABLE)} or another variance-preserving one with {', '.join(PREDICTIONS)}."
            )
        if other := [key for key in OTHER_SPACINGS if config.get(key)]:
            raise BlindspotError(f"The scheduler {name} with {other[0]} cannot serve as a prior: switch that off.")
        variance = config.get("variance_type") or "fixed_small"
        if variance == "learned":
            raise BlindspotError(f"The scheduler {name} learns its variance directly: only learned_range is supported.")
        chooser = scheduler
        if config.get("use_karras_sigmas"):
            chooser = DPMSolverMultistepScheduler(trained_betas=scheduler.betas.tolist(), use_karras_sigmas=True)
        elif name not in GUIDABLE:  # its own levels may come twice, for steps of second order
            chooser = DDIMScheduler(
                len(scheduler.betas),
                timestep_spacing=config.get("timestep_spacing", "leading"),
                steps_offset=config.get("steps_offset", 0),
            )
        consistency = name == "LCMScheduler"
        # In single precision, as diffusers has them, the least noisy levels are off by a thousandth. Levels that a
        # scheduler has set by hand (no signal at all) stay as they are.
        stated = scheduler.alphas_cumprod.double()
        exact = torch.cumprod(1 - scheduler.betas.double(), dim=0)
        return cls(
            abar=tuple(torch.where(torch.isclose(exact, stated, rtol=1e-3, atol=0), exact, stated).tolist()),
            scheduler=chooser,
            prediction=prediction,
            clip=float(config.get("clip_sample_range", 1.0)) if config.get("clip_sample", False) else None,
            learned_variance=variance == "learned_range",
            distilled=int(config["original_inference_steps"]) if consistency else None,
            boundary=float(config["timestep_scaling"]) if consistency else 10.0,
        )

    def timesteps(self, n: int) -> Int[Tensor, " n"]:
        """Choose n of the trained levels, descending, as diffusers spaces them.

        Raises
        ------
        BlindspotError
            If n is not between 1 and the number of levels, or the spacing has not so many different ones.
        """
        total, most = len(self.abar), self.distilled or len(self.abar)
        if not 1 <= n <= most:
            raise BlindspotError(f"{n} sampling steps asked of a prior with {most} levels: choose 1 to {most}.")
        config = self.scheduler.config
        if n == total and not config.get("use_karras_sigmas"):
            return torch.arange(total - 1, -1, -1)
        scheduler = deepcopy(self.scheduler)
        scheduler.set_timesteps(n)
        levels = torch.as_tensor(scheduler.timesteps).double().round().long()
        levels -= (levels.max() - (total - 1)).clamp(min=0)  # an offset may lead beyond the trained levels
        if (levels.diff() >= 0).any():
            spacing = "karras" if config.get("use_karras_sigmas") else config.get("timestep_spacing")
            raise BlindspotError(f"{n} sampling steps are too many for levels of spacing {spacing!r}: take fewer.")
        return levels

    def signal(self, t: int) -> float:
        """Return abar_t; 1 for t < 0, the clean state."""
        return self.abar[t] if t >= 0 else 1.0

    def predict(
        self, output: Float[Tensor, "n outputs height width"], x_t: Float[Tensor, "n channels height width"], t: int
    ) -> Prediction:
        """Turn what a network was trained to predict of x_t at level t into x0 and eps, clipped and consistent."""
        spread = None
        if output.shape[1] == 2 * x_t.shape[1]:
            output, spread = output.chunk(2, dim=1)
        signal, noise = math.sqrt(self.signal(t)), math.sqrt(1 - self.signal(t))
        if self.prediction == "epsilon":
            x0, eps = (x_t - noise * output) / signal, output
        elif self.prediction == "v_prediction":
            x0, eps = signal * x_t - noise * output, signal * output + noise * x_t
        else:
            x0, eps = output, (x_t - signal * output) / noise
        if self.clip is not None:
            x0 = x0.clamp(-self.clip, self.clip)
        if self.distilled is not None:
            scaled = self.boundary * t
            x0 = (DATA_DEVIATION**2 / (scaled**2 + DATA_DEVIATION**2)) * x_t + (
                scaled / math.hypot(scaled, DATA_DEVIATION)
            ) * x0
        if self.clip is not None or self.distilled is not None:
            eps = (x_t - signal * x0) / noise
        return Prediction(x0, eps, spread if self.learned_variance else None)

    def beta(self, t: int, t_prev: int) -> float:
        """Return 1 - abar_t / abar_prev: the noise added between two levels, neighbours or not."""
        return 1 - self.signal(t) / self.signal(t_prev)

    def sigma(self, t: int, t_prev: int) -> float:
        """Posterior standard deviation sqrt(beta (1 - abar_prev) / (1 - abar_t)) (DDPM, eq. 7).

        Of a consistency model: sqrt(1 - abar_prev), all of the noise is new (LCM, algorithm 3).
        """
        if self.distilled is not None:
            return math.sqrt(1 - self.signal(t_prev))
        return math.sqrt(self.beta(t, t_prev) * (1 - self.signal(t_prev)) / (1 - self.signal(t)))

    def learned_sigma(self, spread: Tensor, t: int, t_prev: int) -> Tensor:
        """The learned standard deviation, between `sigma` and sqrt(beta) on a log scale (improved DDPM, eq. 15)."""
        low = math.log(max(self.sigma(t, t_prev) ** 2, 1e-20))
        share = (spread + 1) / 2
        return torch.exp(0.5 * (share * math.log(self.beta(t, t_prev)) + (1 - share) * low))

    def mean(self, x0: Tensor, eps: Tensor, t: int, t_prev: int, eta: float = 1.0) -> Tensor:
        """Mean of the reverse step from t to t_prev (DDIM, eq. 12).

        With eta = 1 this is DDPM's posterior mean
        sqrt(alpha) (1 - abar_prev) / (1 - abar_t) x_t + sqrt(abar_prev) beta / (1 - abar_t) x0,
        the corrected line 6 of Algorithm 1 of EnergyDPS (arXiv:2605.17504).
        """
        before = self.signal(t_prev)
        direction = math.sqrt(max(1 - before - (eta * self.sigma(t, t_prev)) ** 2, 0.0))
        return math.sqrt(before) * x0 + direction * eps


def named_scheduler(name: str, own: Any) -> tuple[Any, float]:
    """Return the scheduler of that name with a pipeline's own constants, and the eta that makes our steps its own.

    Parameters
    ----------
    name
        A class of `GUIDABLE`.
    own
        The pipeline's scheduler.

    Raises
    ------
    BlindspotError
        If guidance cannot go between its steps.
    """
    import diffusers

    if name not in GUIDABLE:
        raise BlindspotError(f"The scheduler {name} cannot be guided: choose one of {', '.join(GUIDABLE)}.")
    scheduler = getattr(diffusers, name).from_config(own.config)
    stochastic = str(scheduler.config.get("algorithm_type", "")).startswith("sde")
    return scheduler, 0.0 if name in NOISELESS and not stochastic else 1.0
