"""Means, differences and proportions of ratings that share concepts and raters, with 95 % intervals.

Ratings are crossed: every rater sees many concepts and every concept has many raters, so a mean over n ratings is less
sure than n independent numbers would make it. In the random-effects model x_cr = mu + a_c + b_r + e_cr the variance of
the mean over C concepts and R raters is (MS_C + MS_R - MS_E) / (C R), estimated without bias by the mean squares of
the two-way analysis of variance; Satterthwaite's rule gives its degrees of freedom. Intervals are percentiles of the
two-way bootstrap (concepts and raters are drawn anew independently; Owen, "The pigeonhole bootstrap", 2007), which
keeps their skewness, stretched about the estimate to this standard error and Student's t: by itself the bootstrap
counts e_cr three times and the raters (R - 1) / R times.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import special

LEVEL = 0.95
"""Of every interval."""
RESAMPLES = 1000
SEED = 0
NORMAL = float(special.ndtri(0.5 + LEVEL / 2))

CrossedRatings = Float[np.ndarray, "units raters"]
"""Ratings of units (concepts, images) by raters; NaN where there is none."""


class IntervalEstimate(NamedTuple):
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float
    error: float
    """Standard error."""


NOTHING = IntervalEstimate(math.nan, math.nan, math.nan, math.nan)


class Spread(NamedTuple):
    """How sure a mean of crossed ratings is."""

    error: float
    freedom: float
    """Degrees of freedom of the error, by Satterthwaite's rule."""

    @property
    def quantile(self) -> float:
        """Student's t of `LEVEL`."""
        return float(special.stdtrit(self.freedom, 0.5 + LEVEL / 2)) if math.isfinite(self.freedom) else NORMAL


def mean_interval(block: CrossedRatings, bounds: tuple[float, float] = (-math.inf, math.inf)) -> IntervalEstimate:
    """Mean of crossed ratings; its interval speaks for further concepts and further raters.

    With one rater there is nothing to know of others, and the interval speaks for further concepts alone.

    Parameters
    ----------
    block
        The ratings.
    bounds
        Ends of the scale, which the interval does not pass.
    """
    return difference_interval(block, None, bounds)


def difference_interval(
    first: CrossedRatings, second: CrossedRatings | None, bounds: tuple[float, float] = (-math.inf, math.inf)
) -> IntervalEstimate:
    """Difference of two means over different concepts that the same raters rated: `first` minus `second`.

    What raters add to both cancels. For the same concepts rated under two methods, take `mean_interval` of the
    differences.
    """
    blocks = [(1.0, first)] + ([] if second is None else [(-1.0, second)])
    means = [sign * np.nanmean(block) if np.isfinite(block).any() else math.nan for sign, block in blocks]
    value = float(sum(means))
    if not math.isfinite(value):
        return NOTHING
    spread = crossed_spread([_influence(block, sign) for sign, block in blocks])
    draws = _resampled_means(blocks)
    deviation = float(draws.std())
    if not math.isfinite(spread.error) or deviation == 0 or spread.error == 0:
        wide = 0.0 if spread.error == 0 else math.inf  # one concept says nothing of others
        low, high = value - wide, value + wide
    else:
        stretch = spread.error * spread.quantile / (deviation * NORMAL)
        ends = np.quantile(draws, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
        low, high = (value + stretch * (float(end) - float(draws.mean())) for end in ends)
    return IntervalEstimate(value, max(low, bounds[0]), min(high, bounds[1]), spread.error)


def proportion_interval(block: CrossedRatings, further_variance: float = 0.0) -> IntervalEstimate:
    """Mean of crossed ratings between 0 and 1, with Wilson's interval at the effective number of ratings p (1 - p) / V.

    Parameters
    ----------
    block
        The shares, often 0 or 1.
    further_variance
        Variance of the mean that the block does not show.
    """
    block = block[np.isfinite(block).any(axis=1)]
    if not block.size:
        return NOTHING
    p, units = float(np.nanmean(block)), len(block)
    spread = crossed_spread([_influence(block)])
    variance = further_variance + (spread.error**2 if math.isfinite(spread.error) else 0.0)
    trials = p * (1 - p) / variance if variance > 0 else float(units)
    trials = min(trials, float(np.isfinite(block).sum()))
    z = spread.quantile if variance > 0 else NORMAL
    centre = (p + z * z / (2 * trials)) / (1 + z * z / trials) if trials > 0 else 0.5
    half = z / (1 + z * z / trials) * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials**2)) if trials > 0 else 0.5
    return IntervalEstimate(p, max(0.0, centre - half), min(1.0, centre + half), math.sqrt(variance))


def success_interval(block: CrossedRatings, threshold: float) -> IntervalEstimate:
    """Share of units whose mean over the raters reaches a threshold (arXiv:2605.17504, appendix L.1: 2.5).

    Other raters would pass other units: that variance is estimated by leaving each rater out (jackknife).
    """
    block = block[np.isfinite(block).any(axis=1)]
    if not block.size:
        return NOTHING
    passed = (np.nanmean(block, axis=1) >= threshold).astype(float)
    raters = np.flatnonzero(np.isfinite(block).any(axis=0))
    without = []
    for left_out in raters if len(raters) > 1 else ():
        rest = np.delete(block, left_out, axis=1)
        rest = rest[np.isfinite(rest).any(axis=1)]
        without.append(float((np.nanmean(rest, axis=1) >= threshold).mean()) if len(rest) else math.nan)
    jackknife = np.array(without)
    jackknife = jackknife[np.isfinite(jackknife)]
    count = len(jackknife)
    further = (count - 1) / count * float(((jackknife - jackknife.mean()) ** 2).sum()) if count > 1 else 0.0
    return proportion_interval(passed[:, None], further)


def crossed_spread(influences: Sequence[CrossedRatings]) -> Spread:
    """Standard error of a statistic that is a sum over ratings, from the parts each rating has in it.

    Parameters
    ----------
    influences
        Per group of units: what each rating adds to the statistic's deviation, such as (x - mean) / n; NaN where there
        is no rating. Columns are the same raters in every group.
    """
    parts: list[tuple[float, float]] = []  # variance and degrees of freedom, of units and raters; then of the residual
    units, residual, freedom = 0.0, 0.0, 0.0
    unit_freedom = 0.0
    for block in influences:
        block = block[np.isfinite(block).any(axis=1)]
        rows = len(block)
        if rows < 2:
            return Spread(math.inf, 1.0)
        units += rows / (rows - 1) * float((np.nansum(block, axis=1) ** 2).sum())
        unit_freedom += rows - 1
        columns = int(np.isfinite(block).any(axis=0).sum())
        count = int(np.isfinite(block).sum())
        left = count - rows - columns + 1
        if left > 0 and columns > 1:
            residual += count / left * float(np.nansum(_centred(block) ** 2))
            freedom += left
    present = np.any([np.isfinite(block).any(axis=0) for block in influences], axis=0)
    columns = int(present.sum())
    raters = 0.0
    if columns > 1:
        sums = np.sum([np.nansum(block, axis=0) for block in influences], axis=0)
        raters = columns / (columns - 1) * float((sums**2).sum())
    parts = [(units, unit_freedom), (raters, columns - 1.0), (residual, freedom)]
    variance = max(units + raters - residual, units, raters)
    if variance == 0:
        return Spread(0.0, math.inf)
    below = sum(part**2 / degrees for part, degrees in parts if degrees > 0)
    return Spread(math.sqrt(variance), max(1.0, variance**2 / below))


def _influence(block: CrossedRatings, sign: float = 1.0) -> CrossedRatings:
    """What each rating adds to the deviation of the mean."""
    return sign * (block - np.nanmean(block)) / np.isfinite(block).sum()


def _centred(block: CrossedRatings) -> CrossedRatings:
    """The residuals of the two-way fit by units and raters, also where ratings are missing (backfitting)."""
    left = block.copy()
    for _ in range(1 if np.isfinite(block).all() else 20):
        left = left - np.nanmean(left, axis=1, keepdims=True)
        present = np.isfinite(left).any(axis=0)
        left[:, present] -= np.nanmean(left[:, present], axis=0)
    return left


def _resampled_means(blocks: Sequence[tuple[float, CrossedRatings]]) -> Float[np.ndarray, " resamples"]:
    """The signed sum of means with units of each block, and raters of all, drawn anew with replacement."""
    present = np.any([np.isfinite(block).any(axis=0) for _, block in blocks], axis=0)
    raters, found = _resampling(int(present.sum()), 0), np.zeros(RESAMPLES)
    for stream, (sign, block) in enumerate(blocks, start=1):
        block = block[np.isfinite(block).any(axis=1)][:, present]
        units, known = _resampling(len(block), stream), np.isfinite(block)
        sums = ((units @ np.where(known, block, 0.0)) * raters).sum(axis=1)
        counts = ((units @ known.astype(float)) * raters).sum(axis=1)
        found += sign * np.divide(sums, counts, out=np.full(RESAMPLES, np.nan), where=counts > 0)
    return found[np.isfinite(found)]


@lru_cache(maxsize=64)
def _resampling(count: int, stream: int) -> Float[np.ndarray, "resamples count"]:
    """How often each of `count` is drawn in every resample; another stream is independent."""
    rng = np.random.default_rng([SEED, stream])
    return rng.multinomial(count, np.full(count, 1 / count), RESAMPLES).astype(float)
