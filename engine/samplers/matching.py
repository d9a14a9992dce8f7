"""Matching: the strength at which a sampler reaches a wanted mean score, for comparing methods at equal scores.

The same seed at every trial (common random numbers) makes the mean a smooth, growing function of the strength, so that
a bracket and a few secants find it with few samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from engine.errors import BlindspotError
from engine.samplers.base import Sampler, Score

GROWTH = 2.0
"""Factor between the trial strengths that look for a bracket."""
NEAR_ZERO = 6.0
"""By what a strength is divided to look between it and none."""
LARGEST = 64.0
"""Largest trial strength, in units of the first."""


class Trial(NamedTuple):
    """What one strength gave."""

    strength: float
    mean: float
    """Mean score of the samples."""
    standard_error: float
    """Of the mean, over the samples; infinite for a single one."""


class Match(NamedTuple):
    """A strength and how well it does."""

    strength: float
    mean: float
    """The mean score it reached."""
    standard_error: float
    """Of that mean, over the samples; infinite for a single one."""
    evaluations: int
    """How many strengths were tried."""
    samples: int
    """How many samples each trial drew."""


class Aim(NamedTuple):
    """A mean score to reach, and how nearly."""

    target: float
    slack: float
    """Share of the standard error that a mean may miss by."""
    relative: float
    """Share of the target that a mean may always miss by."""

    def hit(self, trial: Trial) -> bool:
        """Whether a trial is near enough."""
        error = trial.standard_error if math.isfinite(trial.standard_error) else 0.0
        return abs(trial.mean - self.target) <= max(self.slack * error, self.relative * abs(self.target))


def match_strength(
    factory: Callable[[float], Sampler],
    score: Score,
    target: float,
    *,
    start: float = 0.3,
    n: int = 8,
    seed: int = 0,
    slack: float = 0.5,
    relative: float = 0.01,
    evaluations: int = 16,
) -> Match:
    """Find the strength at which samples have the mean score `target`.

    Parameters
    ----------
    factory
        Strength to sampler.
    score
        As in `Sampler.sample`.
    target
        Mean score to reach; by default people take that of the four best real images (`real_target`).
    start
        First strength to try; its unit is the method's own.
    n, seed
        Samples of a trial, and their seed: the same for all trials.
    slack, relative
        Stop once the mean is within this many standard errors, or this share, of the target.
    evaluations
        Most trials; then the nearest one is returned.

    Raises
    ------
    BlindspotError
        If the target is not a number, below what the sampler gives unpushed, or out of reach.
    """
    if not math.isfinite(target):
        raise BlindspotError(f"The target score must be a finite number, not {target}.")
    if not (math.isfinite(start) and start > 0 and evaluations >= 3):
        raise BlindspotError(f"A search needs a start above 0 and at least 3 trials, not {start} and {evaluations}.")
    aim, trials = Aim(target, slack, relative), []

    def attempt(strength: float) -> Trial:
        scores = factory(strength).sample(score, n, seed).scores
        error = float(scores.std() / math.sqrt(n)) if n > 1 else math.inf
        trials.append(Trial(strength, float(scores.mean()), error))
        return trials[-1]

    low, high = _bracket(attempt, aim, start, evaluations)
    while len(trials) < evaluations and not any(map(aim.hit, trials)):
        strength = _between(low, high, target, secant=len(trials) % 2 == 0)
        if not low.strength < strength < high.strength:
            break
        trial = attempt(strength)
        low, high = (trial, high) if trial.mean < target else (low, trial)
    nearest = min(trials, key=lambda trial: abs(trial.mean - target))
    return Match(*nearest, len(trials), n)


def real_target(scores: Sequence[float], count: int = 4) -> float:
    """Mean of the best real images' scores, the activation that a drawing is asked to reach.

    Raises
    ------
    BlindspotError
        If there is no real image to aim at.
    """
    best = sorted(scores, reverse=True)[:count]
    if not best:
        raise BlindspotError("No real image excites this concept: name a target score.")
    return sum(best) / len(best)


def _bracket(attempt: Callable[[float], Trial], aim: Aim, start: float, evaluations: int) -> tuple[Trial, Trial]:
    """Two trials below and above the target, or the one that hit it twice."""
    low, high = None, attempt(start)
    tried = [high]
    while high.mean < aim.target and not aim.hit(high):
        if high.strength >= LARGEST * start or len(tried) >= evaluations:
            best = max(tried, key=lambda trial: trial.mean)
            raise BlindspotError(
                f"The mean score {aim.target:.4g} is out of reach: the largest reached is {best.mean:.4g}, at strength "
                f"{best.strength:.3g}; choose a lower target or more steps."
            )
        low, high = high, attempt(GROWTH * high.strength)
        tried.append(high)
    if aim.hit(high):
        return high, high
    low = low or attempt(0.0)
    if low.mean > aim.target and not aim.hit(low):
        raise BlindspotError(
            f"The mean score {aim.target:.4g} lies below what the samples have without a push, {low.mean:.4g}: "
            "choose a higher target."
        )
    return low, high


def _between(low: Trial, high: Trial, target: float, secant: bool) -> float:
    """A strength inside the bracket: where the line through its ends meets the target, or the middle of their scale."""
    if not secant or high.mean <= low.mean:
        return math.sqrt(low.strength * high.strength) if low.strength > 0 else high.strength / NEAR_ZERO
    share = (target - low.mean) / (high.mean - low.mean)
    return low.strength + min(max(share, 0.05), 0.95) * (high.strength - low.strength)
