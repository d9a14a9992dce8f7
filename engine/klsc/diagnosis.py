"""Hard threshold against tilt at one mean score: the three biases of Table 2, and KL to the prior."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from engine.errors import BlindspotError
from engine.klsc.law import Atoms, kl, total_variation, weighted_scores
from engine.klsc.threshold import boundary_mass, calibrate_threshold, threshold
from engine.klsc.tilt import calibrate_tilt, tilt

MARGIN, STEP = 0.05, 0.08
"""Width of the boundary shell and step between targets (appendix H.4)."""


class Biases(NamedTuple):
    """What a constraint does to the prior."""

    boundary_mass: float
    """Share of the law above the hard threshold that lies within the margin of it."""
    tv_prior: float
    """TV(q, p)."""
    tv_step: float
    """TV between the laws at the target and a step beyond."""
    kl_prior: float
    """KL(q || p), nats."""


class Diagnosis(NamedTuple):
    """Both constraints at one mean score."""

    target: float
    threshold: float
    hard: Biases
    beta: float
    tilt: Biases

    def as_document(self) -> dict[str, Any]:
        """The same as a JSON object: {target, hard: {threshold, ...}, tilt: {beta, ...}}."""
        return {
            "target": self.target,
            "hard": {"threshold": self.threshold, **self.hard._asdict()},
            "tilt": {"beta": self.beta, **self.tilt._asdict()},
        }


def diagnose(
    scores: Atoms, target: float, log_weights: Atoms | None = None, *, margin: float = MARGIN, step: float = STEP
) -> Diagnosis:
    """Calibrate threshold and tilt to the same mean score and measure both.

    Parameters
    ----------
    scores, log_weights : of the atoms; p has equal weights when None.
    target : wanted mean score, in the score's unit.
    margin : width of the boundary shell above the hard threshold, for both laws.
    step : distance to the second target of `tv_step`.

    Raises
    ------
    BlindspotError
        If the target or the step beyond it is out of reach.
    """
    values, log_p = weighted_scores(scores, log_weights)
    low, high = float(np.exp(log_p) @ values), float(values[log_p > -np.inf].max())
    if not low - 1e-9 * abs(low) <= target < high - step:
        raise BlindspotError(
            f"The target {target:g} is out of reach: choose at least {low:.4g}, the prior's own mean score, and less "
            f"than {high - step:.4g}, as the step of {step:g} beyond it must stay below the highest score."
        )

    cuts = [calibrate_threshold(values, mean, log_p).value for mean in (target, target + step)]
    betas = [calibrate_tilt(values, mean, log_p).value for mean in (target, target + step)]

    def biases(log_q: np.ndarray, log_next: np.ndarray) -> Biases:
        return Biases(
            boundary_mass(values, cuts[0], margin, log_q),
            total_variation(log_q, log_p),
            total_variation(log_q, log_next),
            kl(log_q, log_p),
        )

    hard = biases(*(threshold(values, cut, log_p) for cut in cuts))
    soft = biases(*(tilt(values, beta, log_p) for beta in betas))
    return Diagnosis(target, cuts[0], hard, betas[0], soft)
