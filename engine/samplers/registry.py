"""Sampling methods by name, their settings and defaults. Torch is imported when a sampler is created."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from engine.errors import BlindspotError

if TYPE_CHECKING:
    from engine.samplers.base import Sampler
    from engine.samplers.candidates import CandidateSelection
    from engine.samplers.energy_dps import EnergyDPS
    from engine.samplers.models import ModelBundle

GUIDED = ("energy-guidance", "energy-guidance-light", "energydps")
"""Methods that a gradient's scale and step size belong to."""
WITHOUT_STRENGTH = ("prior", "retrieval")
"""Methods that no strength changes."""
WITHOUT_PRIOR = ("retrieval", "retrieval-soft", "maco", "optimisation", "accentuation")
"""Methods that do not draw from the diffusion prior."""
SELECTION_TILT = 400.0
"""Times the strength, over the score cap: inverse temperature of the selection among the candidates of a sample of
`energy-guidance`. At usual strengths nearly always the best one is kept, and any one as the strength goes to 0."""
SAMPLING_TILT = 32.0
"""The same for the tilt of `energydps`, `energydps-smc` and `retrieval-soft`: beta = 32 strength / cap, so that a
sample at the cap gains exp(32 strength) in likelihood over one that scores 0."""
LIGHT_INTERVAL, LIGHT_CANDIDATES, LIGHT_BATCH = 3, 4, 2
"""`energy-guidance-light` guides every third step and starts as a quarter of the candidates, denoised two at a time."""
CALIBRATED_END = 0.8
"""Where a mean score is to be reached, energy guidance covers this share of the way. Later there is little left to
change but what the encoder alone sees: pushes raise its score, and draw images together in its eyes."""
CALIBRATED_CAP = 1.02
"""Where a mean score is to be reached, no sample is pushed once its own exceeds it by this factor: what lies beyond is
neither natural nor asked for, and would buy the mean with a few exaggerated images."""
OVERSHOOT = 1.05
"""Otherwise a sample is pushed until its score is this many times the best real images' mean. With 1.25 times that of
the very best, 17 of 100 drawings of the demo reached the score without showing the concept, instead of 7."""
GUIDANCE_END = 0.85
"""Share of the way that `energy-guidance` then covers; see `CALIBRATED_END`."""
SELECTION_WINDOW, SELECTION_APPROACH = (0.28, 0.6), 5
"""Where the candidates of `energy-guidance` are halved, and their steps until then: earlier, a predicted image does not
yet show what it is about; later, too little of the way is left to guide."""
LIKENESSES = ("encoder", "pixels")
"""What a drawing can be compared with a reference image by: the cosine of the encoder's embeddings, or the squared
error of pixels."""
STEPS_PER_STEP = 5
"""Steps of an optimisation for each reverse step of a diffusion prior, which costs about as much."""
MACO_RADIANS, OPTIMISATION_WEIGHT, ACCENTUATION_WEIGHT, PROMPT_GUIDANCE = 0.1, 1.0, 10.0, 10.0
"""Times the strength: the step of `maco` in radians, what a score at the cap is worth to `optimisation` and to
`accentuation`, and the guidance scale of `soft-prompt`; so that one default strength serves all."""


@dataclass(frozen=True, kw_only=True)
class SamplerSettings:
    """Settings that every method takes; a method ignores those it does not have."""

    steps: int = 25
    """Reverse steps of a diffusion prior."""
    strength: float = 0.2
    """How hard to push towards the score; a tilt's beta is `SAMPLING_TILT` times it over the score cap."""
    particles: int = 4
    """Particles behind each sample of a particle filter."""
    candidates: int = 32
    """Candidates that a sample of `energy-guidance` starts as; 1: guided from the start."""
    gradient: str | None = None
    """How the score's gradient is scaled (`EnergyDPS.gradient`); None: `raw` for `energydps`, `eps` for
    `energy-guidance`."""
    zeta: float | None = None
    """Step size of `energydps` at every step (`EnergyDPS.zeta`); None: the step's variance."""
    score_cap: float | None = None
    """Score beyond which a sample is not pushed any more; strengths that multiply a score are in units of one over
    it."""
    guidance_end: float | None = None
    """Share of the way, from noise to image, that `energy-guidance` guides; None: `GUIDANCE_END`."""

    def towards(self, target: float) -> Self:
        """These settings for a search for the mean score `target`, whatever the strength."""
        return replace(self, score_cap=CALIBRATED_CAP * target if target > 0 else None, guidance_end=CALIBRATED_END)

    def per_score(self, unit: float) -> float:
        """The strength times `unit`, in units of one over the score, of which the cap says how large it gets."""
        return self.strength * (unit / self.score_cap if self.score_cap else 1.0)


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """A task that drawings serve besides their score, see `engine.samplers.tasks`; none by default."""

    text: str | None = None
    """What the images should show, too."""
    text_encoder: str | None = None
    """Folder or hub id of a model of texts and images, such as CLIP; None: the atlas's own encoder, if it is one."""
    like: str | None = None
    """The image to resemble: its number in the atlas, or a file."""
    like_by: str = "encoder"
    """What it is compared by: one of `LIKENESSES`."""

    @property
    def given(self) -> bool:
        """Whether there is a task."""
        return self.text is not None or self.like is not None

    def check(self) -> None:
        """Raise `BlindspotError` for settings that make no sense."""
        if self.text is not None and self.like is not None:
            raise BlindspotError("Images can fit a text or resemble an image, not both: give one of them.")
        if self.text is not None and not self.text.strip():
            raise BlindspotError("The text that images should fit is empty: say what they should show.")
        if self.text_encoder is not None and self.text is None:
            raise BlindspotError("An encoder of texts is given, but no text: say what the images should show.")
        if self.like_by not in LIKENESSES:
            raise BlindspotError(f"Images cannot be compared by {self.like_by!r}: choose {' or '.join(LIKENESSES)}.")


def _energydps(models: ModelBundle, settings: SamplerSettings) -> Sampler:
    from engine.samplers.energy_dps import EnergyDPS

    gradient: Any = settings.gradient or "raw"
    strength = settings.per_score(SAMPLING_TILT) if gradient == "raw" else settings.strength
    return EnergyDPS(
        models.prior, settings.steps, strength, gradient, zeta=settings.zeta, score_cap=settings.score_cap
    )  # fmt: skip


def _energy_guidance(models: ModelBundle, settings: SamplerSettings) -> EnergyDPS:
    from engine.samplers.energy_dps import EnergyDPS

    gradient: Any = settings.gradient or "eps"
    strength = settings.per_score(SAMPLING_TILT) if gradient == "raw" else settings.strength
    return EnergyDPS(
        models.prior, settings.steps, strength, gradient, zeta=settings.zeta, score_cap=settings.score_cap,
        guidance_window=(0.0, settings.guidance_end or GUIDANCE_END),
        selection=_selection(settings, settings.candidates),
    )  # fmt: skip


def _energy_guidance_light(models: ModelBundle, settings: SamplerSettings) -> Sampler:
    selection = _selection(settings, math.ceil(settings.candidates / LIGHT_CANDIDATES))
    selection = selection and replace(selection, batch=LIGHT_BATCH)
    full = _energy_guidance(models, settings)
    return replace(full, guidance="light", guidance_interval=LIGHT_INTERVAL, selection=selection)


def _selection(settings: SamplerSettings, candidates: int) -> CandidateSelection | None:
    from engine.samplers.candidates import CandidateSelection

    if candidates == 1 or settings.strength == 0:
        return None
    return CandidateSelection(
        settings.per_score(SELECTION_TILT), candidates, SELECTION_WINDOW, approach=SELECTION_APPROACH
    )


def _energydps_smc(models: ModelBundle, settings: SamplerSettings) -> Sampler:
    from engine.samplers.smc import EnergySMC

    return EnergySMC(models.prior, settings.steps, settings.per_score(SAMPLING_TILT), settings.particles)


def _prior(models: ModelBundle, settings: SamplerSettings) -> Sampler:
    return _energy_guidance(models, SamplerSettings(steps=settings.steps, strength=0.0))


def _retrieval(models: ModelBundle, settings: SamplerSettings) -> Sampler:
    from engine.samplers.retrieval import Retrieval

    return Retrieval(models.atlas, models.device)


def _retrieval_soft(models: ModelBundle, settings: SamplerSettings) -> Sampler:
    from engine.samplers.retrieval import PoolRetrieval

    return PoolRetrieval(models.atlas, models.encoder.spec, models.device, settings.per_score(SAMPLING_TILT))


def _maco(models: ModelBundle, settings: SamplerSettings) -> Sampler:
    from engine.samplers.feature_visualization import MACO, corpus_spectrum

    spectrum = corpus_spectrum(models.atlas, models.encoder.spec).to(models.device)
    return MACO(spectrum, STEPS_PER_STEP * settings.steps, MACO_RADIANS * settings.strength, settings.score_cap)


def _optimisation(models: ModelBundle, settings: SamplerSettings) -> Sampler:
    from engine.samplers.feature_visualization import RegularisedOptimisation

    return RegularisedOptimisation(
        models.encoder.spec.image_size, models.device, STEPS_PER_STEP * settings.steps,
        settings.per_score(OPTIMISATION_WEIGHT), score_cap=settings.score_cap,
    )  # fmt: skip


def _accentuation(models: ModelBundle, settings: SamplerSettings) -> Sampler:
    from engine.samplers.feature_visualization import Accentuation, corpus_seeds

    return Accentuation(
        models.encoder, corpus_seeds(models.atlas, models.encoder.spec).to(models.device),
        STEPS_PER_STEP * settings.steps, settings.per_score(ACCENTUATION_WEIGHT), score_cap=settings.score_cap,
    )  # fmt: skip


def _soft_prompt(models: ModelBundle, settings: SamplerSettings) -> Sampler:
    from engine.samplers.soft_prompt import SoftPrompt

    guidance = PROMPT_GUIDANCE * settings.strength
    return SoftPrompt(models.pipeline, settings.steps, guidance, score_cap=settings.score_cap)


SAMPLERS: dict[str, Callable[[ModelBundle, SamplerSettings], Sampler]] = {
    "energy-guidance": _energy_guidance,
    "energy-guidance-light": _energy_guidance_light,
    "energydps": _energydps,
    "energydps-smc": _energydps_smc,
    "prior": _prior,
    "retrieval": _retrieval,
    "retrieval-soft": _retrieval_soft,
    "maco": _maco,
    "optimisation": _optimisation,
    "soft-prompt": _soft_prompt,
    "accentuation": _accentuation,
}


def create(name: str, models: ModelBundle, settings: SamplerSettings) -> Sampler:
    """Return the sampler of that name.

    Raises
    ------
    BlindspotError
        If there is none.
    """
    require_method(name)
    return SAMPLERS[name](models, settings)


def require_method(name: str) -> None:
    """Raise `BlindspotError` for a sampling method that does not exist."""
    if name not in SAMPLERS:
        raise BlindspotError(f"There is no sampling method {name!r}: choose one of {', '.join(SAMPLERS)}.")
