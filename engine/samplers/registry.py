"""Samplers by name, as the command line and the app offer them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from engine.errors import BlindspotError
from engine.samplers.accentuation import Accentuation, corpus_seeds
from engine.samplers.base import Sampler
from engine.samplers.energy_dps import EnergyDPS
from engine.samplers.fourier import corpus_spectrum
from engine.samplers.instruments import Instruments
from engine.samplers.maco import MACO
from engine.samplers.optimisation import RegularisedOptimisation
from engine.samplers.particle import EnergySMC
from engine.samplers.pool import PoolRetrieval
from engine.samplers.retrieval import Retrieval
from engine.samplers.soft_prompt import SoftPrompt
from engine.samplers.thinning import Thinning

TILT = 32.0
"""Times the strength, over the cap: the inverse temperature of `energydps-smc` and `retrieval-soft`. A sample at the
cap gains exp(32 strength) in likelihood over one that scores 0."""
CHOICE = 400.0
"""The same for the choice among the states that a sample of `energydps` begins as: at usual strengths nearly always the
best, evenly as the strength goes to 0."""
EVERY, FEWER, AT_ONCE = 3, 4, 2
"""`energydps-light` guides every third step, and begins as a quarter of the states, denoised two at a time."""
UNTIL = 0.8
"""Where a mean score is to be reached, EnergyDPS guides this share of the way. Later there is little left to change but
what the encoder alone sees: pushes raise its score, and draw images together in its eyes."""
MARGIN = 1.02
"""Where a mean score is to be reached, no sample is pushed once its own passes it by this factor: what lies beyond is
neither natural nor asked for, and would buy the mean with a few exaggerated images."""
LOOKS = 5
"""Steps of an optimisation for each reverse step of a diffusion prior, which costs about as much."""
TURN, WORTH, ACCENT, GUIDANCE = 0.1, 1.0, 10.0, 10.0
"""Times the strength: the step of `maco` in radians, what a score at the cap is worth to `optimisation` and to
`accentuation`, and the guidance scale of `soft-prompt`; so that one default strength serves all."""


@dataclass(frozen=True)
class Settings:
    """What every method may be told; a method ignores what it does not know."""

    steps: int
    """Reverse steps of a diffusion prior."""
    strength: float
    """How hard to push towards the score."""
    cap: float | None = None
    """Score beyond which a sample is not pushed any more; strengths that multiply a score are in units of one over
    it."""
    particles: int = 4
    """Particles behind each sample of a particle filter."""
    states: int = 16
    """States that a sample of EnergyDPS begins as; 1: guided from the start, as paper 000's Algorithm 1."""
    until: float = 1.0
    """Share of the way, from noise to image, that EnergyDPS guides."""

    def towards(self, target: float) -> Settings:
        """These settings for a search for the mean score `target`, whatever the strength."""
        return replace(self, cap=MARGIN * target if target > 0 else None, until=UNTIL)


Factory = Callable[[Instruments, Settings], Sampler]


def _energydps(models: Instruments, settings: Settings) -> EnergyDPS:
    window, thinning = (0.0, settings.until), _thinning(settings, settings.states)
    return EnergyDPS(
        models.prior, settings.steps, settings.strength, cap=settings.cap, window=window, thinning=thinning
    )


def _energydps_light(models: Instruments, settings: Settings) -> Sampler:
    fewer = _thinning(settings, math.ceil(settings.states / FEWER))
    fewer = fewer and replace(fewer, at_once=AT_ONCE)
    return replace(_energydps(models, settings), guidance="light", every=EVERY, thinning=fewer)


def _energydps_smc(models: Instruments, settings: Settings) -> Sampler:
    return EnergySMC(models.prior, settings.steps, _per_score(settings, TILT), settings.particles)


def _prior(models: Instruments, settings: Settings) -> Sampler:
    return EnergyDPS(models.prior, settings.steps, strength=0.0)


def _retrieval(models: Instruments, settings: Settings) -> Sampler:
    return Retrieval(models.atlas, models.device)


def _retrieval_soft(models: Instruments, settings: Settings) -> PoolRetrieval:
    return PoolRetrieval(models.atlas, models.encoder.spec, models.device, _per_score(settings, TILT))


def _maco(models: Instruments, settings: Settings) -> Sampler:
    spectrum = corpus_spectrum(models.atlas, models.encoder.spec).to(models.device)
    return MACO(spectrum, LOOKS * settings.steps, TURN * settings.strength, settings.cap)


def _optimisation(models: Instruments, settings: Settings) -> Sampler:
    size, worth = models.encoder.spec.image_size, _per_score(settings, WORTH)
    return RegularisedOptimisation(size, models.device, LOOKS * settings.steps, worth, cap=settings.cap)


def _soft_prompt(models: Instruments, settings: Settings) -> SoftPrompt:
    return SoftPrompt(models.pipeline, settings.steps, GUIDANCE * settings.strength, cap=settings.cap)


def _accentuation(models: Instruments, settings: Settings) -> Sampler:
    seeds = corpus_seeds(models.atlas, models.encoder.spec).to(models.device)
    worth = _per_score(settings, ACCENT)
    return Accentuation(models.encoder, seeds, LOOKS * settings.steps, worth, cap=settings.cap)


def _thinning(settings: Settings, states: int) -> Thinning | None:
    return None if states == 1 or settings.strength == 0 else Thinning(_per_score(settings, CHOICE), states)


def _per_score(settings: Settings, unit: float) -> float:
    """A strength in units of one over the score, of which the cap says how large it gets."""
    return settings.strength * (unit / settings.cap if settings.cap else 1.0)


SAMPLERS: dict[str, Factory] = {
    "energydps": _energydps,
    "energydps-light": _energydps_light,
    "energydps-smc": _energydps_smc,
    "prior": _prior,
    "retrieval": _retrieval,
    "retrieval-soft": _retrieval_soft,
    "maco": _maco,
    "optimisation": _optimisation,
    "soft-prompt": _soft_prompt,
    "accentuation": _accentuation,
}


def create(name: str, instruments: Instruments, settings: Settings) -> Sampler:
    """The sampler of that name.

    Raises
    ------
    BlindspotError
        If there is none.
    """
    require_method(name)
    return SAMPLERS[name](instruments, settings)


def require_method(name: str) -> None:
    """Raise `BlindspotError` for a sampler that does not exist."""
    if name not in SAMPLERS:
        raise BlindspotError(f"There is no sampling method {name!r}: choose one of {', '.join(SAMPLERS)}.")
