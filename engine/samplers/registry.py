"""Samplers by name, as the command line and the app offer them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from engine.errors import BlindspotError
from engine.samplers.base import Sampler
from engine.samplers.energy_dps import EnergyDPS
from engine.samplers.instruments import Instruments
from engine.samplers.retrieval import Retrieval


@dataclass(frozen=True)
class Settings:
    """What every method may be told; a method ignores what it does not know."""

    steps: int
    """Reverse steps of a diffusion prior."""
    strength: float
    """How hard to push towards the score."""
    cap: float | None = None
    """Score beyond which a sample is not pushed any more."""


Factory = Callable[[Instruments, Settings], Sampler]


def _energydps(models: Instruments, settings: Settings) -> Sampler:
    return EnergyDPS(models.prior, settings.steps, settings.strength, cap=settings.cap)


def _energydps_light(models: Instruments, settings: Settings) -> Sampler:
    return EnergyDPS(models.prior, settings.steps, settings.strength, guidance="light", cap=settings.cap)


def _prior(models: Instruments, settings: Settings) -> Sampler:
    return EnergyDPS(models.prior, settings.steps, strength=0.0)


def _retrieval(models: Instruments, settings: Settings) -> Sampler:
    return Retrieval(models.atlas, models.device)


SAMPLERS: dict[str, Factory] = {
    "energydps": _energydps,
    "energydps-light": _energydps_light,
    "prior": _prior,
    "retrieval": _retrieval,
}


def create(name: str, instruments: Instruments, settings: Settings) -> Sampler:
    """The sampler of that name.

    Raises
    ------
    BlindspotError
        If there is none.
    """
    if name not in SAMPLERS:
        raise BlindspotError(f"There is no sampling method {name!r}: choose one of {', '.join(SAMPLERS)}.")
    return SAMPLERS[name](instruments, settings)
