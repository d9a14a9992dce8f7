"""How sure a gap is: moments of the energies, standard errors for paired, unpaired and partly paired images, p and q.

The gap is a difference of two means, so its variance needs the variances of both means and their covariance:

    se^2 = V_model + V_real - 2 C,    V = s^2 / n,    C = pairs * cov_pairs / (n_model * n_real).

With every image in a pair this is exactly the variance of the per-pair differences over n; with no pair C = 0 and it is
Welch's; in between it is the variance of two means that share some of their images. An atlas stores the moments of each
source and `se`, so C follows from them (`mean_covariance`), and every estimator of delta gets its interval without
going back to the images.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import special

from engine.blindspots.rows import BLOCK, Rows, row_blocks, take_rows
from engine.errors import BlindspotError

SAME = 1e-6
"""Standard deviation, as a share of the mean, up to which energies are one number: they are stored as float32."""
FEW = 30
"""Images of a source below which its mean is not taken for normal."""
PerConcept = Float[np.ndarray, " concepts"]
"""One number per concept, [K]."""
Counts = Int[np.ndarray, " concepts"]
"""A number of images per concept, [K]."""


class Moments(NamedTuple):
    """Number of images, sum and sum of squares of their energies, per concept."""

    images: int
    """Number of images, n; those in which a concept is silent count with energy 0."""
    sum: np.ndarray
    """[K] float64, sum of energies."""
    sum_sq: np.ndarray
    """[K] float64, sum of squared energies."""

    @property
    def mean(self) -> np.ndarray:
        """[K] mean energy E_k; zero when there is no image."""
        return self.sum / max(self.images, 1)

    @property
    def variance(self) -> np.ndarray:
        """[K] unbiased variance of the energies; infinite below two images, where nothing is known of it."""
        if self.images < 2:
            return np.full_like(self.sum, np.inf)
        return np.maximum(self.sum_sq - self.sum * self.mean, 0.0) / (self.images - 1)

    @classmethod
    def of(cls, energies: Rows) -> Moments:
        """The moments of image energies [images, K]."""
        total, squares = np.zeros(energies.shape[1]), np.zeros(energies.shape[1])
        for _, block in row_blocks(energies):
            values = block.data.astype(np.float64)
            np.add.at(total, block.indices, values)
            np.add.at(squares, block.indices, values**2)
        return cls(energies.shape[0], total, squares)


def images_with(energies: Rows) -> np.ndarray:
    """[K] int64 images in which a concept's energy is above zero."""
    found = np.zeros(energies.shape[1], np.int64)
    for _, block in row_blocks(energies):
        found += np.bincount(block.indices, minlength=len(found))
    return found


class Gap(NamedTuple):
    """Difference of mean energies between a model and the real images, per concept."""

    pairs: int
    """Number of paired images; 0 when the sources are unpaired."""
    gap: np.ndarray
    """[K] E(model) - E(real)."""
    se: np.ndarray
    """[K] standard error of the gap; infinite when a source has fewer than two images, and for a concept that has a gap
    though neither source has any spread, as when all images of each are one: chance is then unknown."""


class Interval(NamedTuple):
    """An interval per concept."""

    low: np.ndarray
    """[K] lower end."""
    high: np.ndarray
    """[K] upper end."""


def measure_gap(real: Rows, model: Rows, real_rows: np.ndarray, model_rows: np.ndarray) -> Gap:
    """The gap of every concept with its standard error.

    Parameters
    ----------
    real, model : [images, K] image energies.
    real_rows, model_rows : [pairs] rows of the two that belong to the same pair; empty when unpaired.
    """
    reference, generated = Moments.of(real), Moments.of(model)
    variance = generated.variance / max(generated.images, 1) + reference.variance / max(reference.images, 1)
    unknown = (generated.mean != reference.mean) & _constant(reference) & _constant(generated)
    pairs = len(real_rows)
    if pairs >= 2:
        products, left_sum, right_sum = np.zeros((3, real.shape[1]))
        for start in range(0, pairs, BLOCK):
            some = slice(start, start + BLOCK)
            left = take_rows(real, real_rows[some]).astype(np.float64)
            right = take_rows(model, model_rows[some]).astype(np.float64)
            for total, part in ((products, left.multiply(right)), (left_sum, left), (right_sum, right)):
                total += np.asarray(part.sum(axis=0)).ravel()
        covariance = (products - left_sum * right_sum / pairs) / (pairs - 1)
        limit = np.sqrt(reference.variance * generated.variance)
        covariance = np.clip(covariance, -limit, limit)
        variance = variance - 2 * covariance * pairs / (reference.images * generated.images)
    se = np.where(unknown, np.inf, np.sqrt(np.maximum(variance, 0.0)))
    return Gap(pairs, generated.mean - reference.mean, se)


def shared_pairs(
    first: Int[np.ndarray, " n"], second: Int[np.ndarray, " m"]
) -> tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]]:
    """Rows of two sources whose images belong to the same pair, each row at most once.

    Parameters
    ----------
    first, second : the pair of every image of a source; below 0 where it has none. Where a source has several images
        of a pair, its first goes with the other's first, and so on.
    """

    def keyed(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        order = np.argsort(pairs, kind="stable")
        order = order[pairs[order] >= 0]
        found = pairs[order].astype(np.int64)
        place = np.arange(len(found)) - np.searchsorted(found, found)
        return found * (len(first) + len(second) + 1) + place, order

    (a, a_rows), (b, b_rows) = keyed(np.asarray(first)), keyed(np.asarray(second))
    _, left, right = np.intersect1d(a, b, assume_unique=True, return_indices=True)
    return a_rows[left], b_rows[right]


def _constant(energies: Moments) -> np.ndarray:
    """[K] whether the energies do not differ between images, but for rounding."""
    return energies.variance <= SAME**2 * energies.mean**2


def mean_covariance(real: Moments, model: Moments, se: PerConcept) -> PerConcept:
    """Covariance C of the two mean energies, from the moments and the gap's standard error.

    C = (V_model + V_real - se^2) / 2; zero (to rounding) for unpaired sources.
    """
    if real.images < 2 or model.images < 2:
        return np.zeros_like(se)
    return (model.variance / model.images + real.variance / real.images - se**2) / 2


def normal_quantile(level: float) -> float:
    """z such that a normal variable lies within +-z standard errors with probability `level`: 1.96 for 0.95."""
    return float(special.ndtri(0.5 + level / 2))


def student_quantile(degrees: np.ndarray | float, level: float) -> np.ndarray:
    """t such that Student's variable lies within +-t with probability `level`; infinite degrees: `normal_quantile`."""
    return np.asarray(special.stdtrit(degrees, 0.5 + level / 2))


def normal_p(effect: PerConcept, se: PerConcept) -> PerConcept:
    """Two-sided normal p-value of `effect` = 0.

    Without spread (se = 0) it is 1 where the effect is 0 and 0 elsewhere; without knowledge (se infinite) it is 1.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.abs(effect) / se
    return 2 * special.ndtr(-np.where(effect == 0, 0.0, z))


def null_error(real: Moments, model: Moments, se: PerConcept) -> PerConcept:
    """The standard error to test with when a model has fewer images than the real source, or more.

    A rare concept that the smaller source misses by chance has variance 0 there, and Welch's error is then far too
    small. If both sources had one law, the variance of the gap would be s^2 (1/n_m + 1/n_r) - 2 C with s^2 the pooled
    variance; the larger of this and `se` is returned. For sources of equal size the two are the same.
    """
    if real.images < 2 or model.images < 2:
        return np.full_like(se, np.inf)
    weights = np.array([real.images - 1, model.images - 1], np.float64)
    pooled = (weights[0] * real.variance + weights[1] * model.variance) / weights.sum()
    common = pooled * (1 / real.images + 1 / model.images) - 2 * mean_covariance(real, model, se)
    return np.maximum(se, np.sqrt(np.maximum(common, 0.0)))


def degrees_of_freedom(real: Moments, model: Moments, pairs: int | bool) -> PerConcept:
    """Degrees of freedom of the gap's standard error, for samples too small to call normal.

    Pairs of all images: pairs - 1. No pair: Welch and Satterthwaite's (V_m + V_r)^2 / (V_m^2 / (n_m - 1) + V_r^2 /
    (n_r - 1)). Some pairs: the smaller source's n - 1, a safe lower bound. At least 1.
    """
    sizes = np.maximum(np.array([real.images, model.images]) - 1, 1)
    if pairs:
        return np.full(len(real.sum), float(sizes.min()))
    errors = np.stack([real.variance / max(real.images, 1), model.variance / max(model.images, 1)])
    with np.errstate(divide="ignore", invalid="ignore"):
        found = errors.sum(axis=0) ** 2 / (errors**2 / sizes[:, None]).sum(axis=0)
    return np.clip(np.nan_to_num(found, nan=float(sizes.min())), 1.0, float(sizes.sum()))


def active_degrees(real_active: Counts, model_active: Counts) -> PerConcept:
    """Degrees of freedom that a rare concept's spread is really known with: images in which it fires, minus 1.

    The many silent images add nothing to what is known of the spread, so a concept seen in 20 of 10,000 images has
    an error bar that is itself uncertain. Student's interval with these degrees is wider than the normal one where that
    matters and equal to it for frequent concepts (measured in benchmarks/coverage.py). `real_active` and `model_active`
    are the numbers of images with energy above zero.
    """
    return np.maximum(np.asarray(real_active) + np.asarray(model_active) - 1.0, 1.0)


def interval_degrees(
    real: Moments,
    model: Moments,
    paired: bool,
    real_active: Counts,
    model_active: Counts,
) -> PerConcept:
    """Degrees of freedom of the intervals that an atlas stores and its reader recomputes.

    The smaller of `degrees_of_freedom`, which limits small sources, and `active_degrees`, which limits rare concepts.
    """
    return np.minimum(degrees_of_freedom(real, model, paired), active_degrees(real_active, model_active))


def student_p(effect: np.ndarray | float, se: np.ndarray | float, degrees: np.ndarray | float) -> np.ndarray:
    """Two-sided p-value of `effect` = 0 by Student's t; the edge cases are those of `normal_p`."""
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.abs(effect) / se
    return 2 * special.stdtr(degrees, -np.where(np.equal(effect, 0), 0.0, t))


def gap_p(gap: PerConcept, se: PerConcept, images: int, degrees: PerConcept) -> PerConcept:
    """Two-sided p-value of no gap: normal, or Student's where the smaller source has fewer than `FEW` images.

    Of two images anything is many of its own standard errors away from zero; `degrees` are `interval_degrees`.
    """
    return normal_p(gap, se) if images >= FEW else student_p(gap, se, degrees)


def benjamini_hochberg(p: PerConcept, live: np.ndarray | None = None) -> PerConcept:
    """Benjamini-Hochberg q-values: the smallest false discovery rate at which each hypothesis is rejected.

    Only `live` concepts [K] are tested (default: all), the others get q = 1. Equal to
    `scipy.stats.false_discovery_control`, whose import would cost every reader of an atlas a second.
    """
    live = np.ones(len(p), bool) if live is None else np.asarray(live, bool)
    tested = np.asarray(p, np.float64)[live]
    order = np.argsort(tested)[::-1]
    ranks = np.arange(len(tested), 0, -1)
    smallest = np.minimum.accumulate(tested[order] * len(tested) / ranks)
    adjusted = np.empty_like(tested)
    adjusted[order] = np.minimum(smallest, 1.0)
    q = np.ones(len(live))
    q[live] = adjusted
    return q


class Halves(NamedTuple):
    """Two disjoint sets of images of one source, of equal size: the baseline of every statistic.

    One half plays the model. Whatever a divergence, a share of unique entries or a Frechet distance is between the
    halves, a model has to exceed it before it means anything.
    """

    first: np.ndarray
    """[images // 2] rows, rising."""
    second: np.ndarray
    """[images // 2] rows, rising."""


def split_halves(images: int, generator: np.random.Generator) -> Halves:
    """Split a source at random; an odd image is left out.

    Raises
    ------
    BlindspotError
        For fewer than four images, which leave no spread within a half.
    """
    if images < 4:
        raise BlindspotError(f"A source of {images} images has no two halves to compare: give four or more.")
    order = generator.permutation(images)
    half = images // 2
    return Halves(np.sort(order[:half]), np.sort(order[half : 2 * half]))
