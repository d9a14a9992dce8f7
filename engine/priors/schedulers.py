"""Another diffusers scheduler in place of the one that a pipeline came with."""

from __future__ import annotations

from typing import Any

from engine.errors import BlindspotError
from engine.priors.schedule import GUIDABLE

NOISELESS = ("DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler")


def named_scheduler(name: str, own: Any) -> tuple[Any, float]:
    """The scheduler of that name with a pipeline's own constants, and the eta that makes our steps its own.

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
