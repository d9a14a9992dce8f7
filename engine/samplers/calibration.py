"""Calibration: the strength at which a sampler reaches a wanted mean score, for comparing methods at equal scores.

The same seed in every trial (common random numbers) makes the mean a smooth, growing function of the strength, so that
a bracket and a few secants find it with few samples.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from engine.errors import BlindspotError
from engine.samplers.base import OnStep, Sampler, Samples, Score

GROWTH = 2.0
"""Factor between the trial strengths that look for a bracket."""
NEAR_ZERO = 6.0
"""By what a strength is divided to look between it and none."""
LARGEST = 64.0
"""Largest trial strength, in units of the first."""
FEWEST = 4
"""Samples of a trial, where fewer are wanted: a mean of less says little."""


class Timed(NamedTuple):
    """The result of some work and what it took."""

    result: Any
    seconds: float
    gigabytes: float = math.nan
    """Peak memory; NaN where it was not measured."""


Profiler = Callable[[Callable[[], Any]], Timed]
"""Does the work and measures what it takes."""


def timed(work: Callable[[], Any]) -> Timed:
    """Do the work and time it."""
    began = time.perf_counter()
    return Timed(work(), time.perf_counter() - began)


class Trial(NamedTuple):
    """The samples of one strength, and what drawing them took."""

    samples: Samples
    strength: float
    seconds: float
    """Of all samples together."""
    gigabytes: float = math.nan
    """As in `Timed`."""

    @property
    def mean(self) -> float:
        """Mean score."""
        return float(self.samples.scores.mean())

    @property
    def error(self) -> float:
        """Standard error of the mean score."""
        return standard_error(self.samples.scores.tolist())


Trials = dict[float, Trial]
"""Trials by strength, shared by searches with the same sampler, score and seed: none is drawn twice."""


class Calibration(NamedTuple):
    """A strength and the mean score it reaches."""

    strength: float
    mean: float
    """The mean score."""
    standard_error: float
    """Of that mean, over the samples; infinite for a single one."""
    evaluations: int
    """How many strengths were tried."""
    samples: int
    """How many samples each trial drew."""


def run_trial(
    trials: Trials,
    strength: float,
    factory: Callable[[float], Sampler],
    score: Score,
    n: int,
    seed: int,
    on_step: OnStep | None = None,
    profiler: Profiler = timed,
) -> Trial:
    """Draw n samples at a strength, unless `trials` has them; new ones are added to it. Errors as `Sampler.sample`."""
    if strength not in trials:
        sampler = factory(strength)
        samples, *costs = profiler(lambda: sampler.sample(score, n, seed, on_step))
        trials[strength] = Trial(samples, strength, *costs)
    return trials[strength]


def calibrate_strength(
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
    on_step: OnStep | None = None,
    trials: Trials | None = None,
    profiler: Profiler = timed,
) -> Calibration:
    """Find the strength at which samples have the mean score `target`.

    Parameters
    ----------
    factory
        Strength to sampler.
    score
        As in `Sampler.sample`.
    target
        Mean score to reach, for instance that of the best real images (`mean_of_best`).
    start
        First strength to try; its unit is the method's own.
    n, seed
        Samples of a trial, and their seed: the same for all trials.
    slack, relative
        Stop once the mean is within this many standard errors, or this share, of the target.
    evaluations
        Most trials; then the nearest one is returned.
    on_step
        Called after every step of every trial.
    trials
        Filled with the trials; those of an earlier search are not drawn again.
    profiler
        Measures what each trial takes.

    Raises
    ------
    BlindspotError
        If the target is not a number, below what the sampler gives without a push, or out of reach.
    Cancelled
        If `on_step` returned False.
    """
    if not math.isfinite(target):
        raise BlindspotError(f"The target score must be a finite number, not {target}.")
    if not (math.isfinite(start) and start > 0 and evaluations >= 3):
        raise BlindspotError(f"A search needs a start above 0 and at least 3 trials, not {start} and {evaluations}.")
    known: Trials = {} if trials is None else trials
    tried: list[Trial] = []

    def attempt(strength: float) -> Trial:
        tried.append(run_trial(known, strength, factory, score, n, seed, on_step, profiler))
        return tried[-1]

    def error_of(trial: Trial) -> float:
        return float(trial.samples.scores.std() / math.sqrt(n)) if n > 1 else math.inf

    def hit(trial: Trial) -> bool:
        error = error_of(trial) if math.isfinite(error_of(trial)) else 0.0
        return abs(trial.mean - target) <= max(slack * error, relative * abs(target))

    low: Trial | None = None
    high = attempt(start)
    while high.mean < target and not hit(high):
        if high.strength >= LARGEST * start or len(tried) >= evaluations:
            best = max(tried, key=lambda trial: trial.mean)
            raise BlindspotError(
                f"The mean score {target:.4g} is out of reach: the largest reached is {best.mean:.4g}, at strength "
                f"{best.strength:.3g}; choose a lower target or more steps."
            )
        low, high = high, attempt(GROWTH * high.strength)
    if not hit(high):
        low = low or attempt(0.0)
        if low.mean > target and not hit(low):
            raise BlindspotError(
                f"The mean score {target:.4g} lies below what the samples have without a push, {low.mean:.4g}: "
                "choose a higher target."
            )
        while len(tried) < evaluations and not any(map(hit, tried)):
            strength = _between(low, high, target, secant=len(tried) % 2 == 0)
            if not low.strength < strength < high.strength:
                break
            trial = attempt(strength)
            low, high = (trial, high) if trial.mean < target else (low, trial)
    found = min(tried, key=lambda trial: abs(trial.mean - target))
    return Calibration(found.strength, found.mean, error_of(found), len(tried), n)


def sample_calibrated(
    factory: Callable[[float], Sampler],
    score: Score,
    target: float,
    *,
    count: int,
    start: float,
    seed: int = 0,
    on_step: OnStep | None = None,
    trials: Trials | None = None,
) -> tuple[Samples, Calibration]:
    """Draw `count` images whose mean score is `target`: those of the trial that `calibrate_strength` returns.

    Parameters and errors as in `calibrate_strength`; a trial draws at least `FEWEST` samples.
    """
    trials = {} if trials is None else trials
    found = calibrate_strength(
        factory, score, target, start=start, n=max(count, FEWEST), seed=seed, on_step=on_step, trials=trials
    )
    samples = trials[found.strength].samples
    return Samples(samples.images[:count], samples.scores[:count], samples.trace[:, :count]), found


def mean_of_best(scores: Sequence[float], count: int = 4) -> float:
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


def nearest(trials: Trials, target: float) -> Trial:
    """The trial whose mean score is nearest to a target."""
    return min(trials.values(), key=lambda trial: abs(trial.mean - target))


def standard_error(values: Sequence[float]) -> float:
    """Of the mean of two or more values."""
    return statistics.stdev(values) / math.sqrt(len(values))


def _between(low: Trial, high: Trial, target: float, secant: bool) -> float:
    """A strength inside the bracket: where the line through its ends meets the target, or the middle of their scale."""
    if not secant or high.mean <= low.mean:
        return math.sqrt(low.strength * high.strength) if low.strength > 0 else high.strength / NEAR_ZERO
    share = (target - low.mean) / (high.mean - low.mean)
    return low.strength + min(max(share, 0.05), 0.95) * (high.strength - low.strength)
