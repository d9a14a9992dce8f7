"""Can a model be made to draw a concept? Rates with intervals, and the verdict of a stress test.

"Conceptual Blindspots in Generative Image Models", appendix G.2, asks models for a suppressed concept in many prompts
and looks at the images. Here an image *shows* a concept if its energy reaches a level that was set on real images; a
model's rate is compared with what the same model shows unasked, so that a concept that fires by itself is no success.

Images of one prompt are alike, so a rate r of n images in P prompts has the effective size n / deff, with deff the
variance between prompts over that of independent images (Korn and Graubard 1998), at least 1 and at most the images of
a prompt, which it is taken to be where all or none show the concept. Intervals are Wilson's at that size with Student's
t of P - 1 degrees of freedom. A linear contrast of rates has the interval of Zou, Huang and Zhang (2009), equation 2,
the recovered variances of its parts (MOVER); its p-value is the level whose interval ends at zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import special

from engine.blindspots.significance import benjamini_hochberg
from engine.errors import BlindspotError

TRUE_BLINDSPOT, PROMPTABLE, NOT_DECIDED = VERDICTS = ("true blindspot", "promptable", "not decided")
LINE = 0.25
"""Share of the comparison's rise of the rate below which a model has a true blindspot."""
FALSE_DISCOVERIES = 0.05
LEAST_BALANCED = 0.7
"""Balanced accuracy on held-out real images below which a level says too little for a verdict."""
LEAST_IMAGES = 5
"""Real images with and without the word, in each half, that a level needs."""
ABLE = 0.5
"""Share of the real images' rise of the rate that a model must have to be what others are compared with."""


class Rate(NamedTuple):
    """A share of images with its effective size."""

    shown: int
    images: int
    effective: float
    """Independent images that would say as much."""
    degrees: float
    """Of freedom of its interval."""

    @property
    def value(self) -> float:
        """The share; NaN of no images."""
        return self.shown / self.images if self.images else float("nan")

    def interval(self, alpha: float = 0.05) -> tuple[float, float]:
        """Wilson's interval at 1 - alpha; all of [0, 1] where nothing is known."""
        if self.effective <= 0 or self.degrees <= 0:
            return 0.0, 1.0
        t = -float(special.stdtrit(self.degrees, alpha / 2))
        if not np.isfinite(t):
            return 0.0, 1.0
        spread = t * t / self.effective
        centre = (self.value + spread / 2) / (1 + spread)
        half = np.sqrt(spread * (self.value * (1 - self.value) + spread / 4)) / (1 + spread)
        # The ends are exactly 0 and 1 where none or all show it; sums round.
        low = 0.0 if self.shown == 0 else max(0.0, centre - half)
        return low, 1.0 if self.shown == self.images else min(1.0, centre + half)


def simple_rate(shown: Bool[np.ndarray, " images"]) -> Rate:
    """The rate of independent images."""
    count = len(shown)
    return Rate(int(np.sum(shown)), count, float(count), max(count - 1.0, 0.0))


def clustered_rate(shown: Bool[np.ndarray, " images"], prompts: Int[np.ndarray, " images"]) -> Rate:
    """The rate of images that were drawn several to a prompt.

    Parameters
    ----------
    shown
        Whether each image shows the concept.
    prompts
        The prompt of each image, any integers.
    """
    names, place = np.unique(prompts, return_inverse=True)
    sizes = np.bincount(place, minlength=len(names))
    total, count, groups = int(np.sum(shown)), len(shown), len(names)
    if groups < 2:
        return Rate(total, count, 0.0, 0.0)
    rate = total / count
    most = float((sizes**2).sum() / count)
    if total in (0, count):
        effect = most
    else:
        sums = np.bincount(place, weights=np.asarray(shown, float), minlength=groups)
        between = groups / (groups - 1) * float(((sums - rate * sizes) ** 2).sum()) / count**2
        effect = float(np.clip(between * count / (rate * (1 - rate)), 1.0, max(most, 1.0)))
    return Rate(total, count, count / effect, groups - 1.0)


class Contrast(NamedTuple):
    """A weighted sum of independent rates."""

    value: float
    low: float
    high: float
    """95 % interval."""
    p: float
    """Two-sided, of a sum of zero."""


def contrast(terms: Sequence[tuple[float, Rate]]) -> Contrast:
    """Estimate sum_i weight_i rate_i with its MOVER interval; rates without images make it unknown (p = 1)."""
    value = float(sum(weight * rate.value for weight, rate in terms if weight))

    def ends(alpha: float) -> tuple[float, float]:
        below = above = 0.0
        for weight, rate in terms:
            low, high = (weight * (end - rate.value) for end in rate.interval(alpha))
            below += min(low, high) ** 2
            above += max(low, high) ** 2
        return value - np.sqrt(below), value + np.sqrt(above)

    if not np.isfinite(value):
        return Contrast(float("nan"), float("nan"), float("nan"), 1.0)
    low, high = ends(0.05)

    def gap(logarithm: float) -> float:
        bounds = ends(float(np.exp(logarithm)))
        return bounds[0] if value > 0 else -bounds[1]

    least, most = np.log(1e-12), np.log(1 - 1e-9)
    if gap(most) <= 0:
        p = 1.0
    elif gap(least) >= 0:
        p = 1e-12
    else:
        from scipy import optimize  # a second for whoever only reads an atlas

        p = float(np.exp(optimize.brentq(gap, least, most, xtol=1e-4)))
    return Contrast(value, float(low), float(high), p)


class Level(NamedTuple):
    """The image energy from which an image counts as showing a concept, and what it is worth on real images."""

    energy: float
    with_word: Rate
    """Held-out real images whose caption names it."""
    without: Rate
    """Held-out real images whose caption does not."""

    @property
    def balanced(self) -> float:
        """Balanced accuracy on the held-out real images."""
        return (self.with_word.value + 1 - self.without.value) / 2


def calibrate(energies: Float[np.ndarray, " images"], named: Bool[np.ndarray, " images"], seed: int = 0) -> Level:
    """Set the level on one random half of the real images, and measure its two rates on the other.

    The level is the energy with the highest balanced accuracy, of several the highest.

    Parameters
    ----------
    energies
        Image energies of one concept in real images with captions.
    named
        Whether the caption names the concept.

    Raises
    ------
    BlindspotError
        If too few captions name it, or too few do not.
    """
    generator = np.random.default_rng(seed)
    chosen = np.zeros(len(named), bool)
    for group in (np.flatnonzero(named), np.flatnonzero(~named)):
        if len(group) < 2 * LEAST_IMAGES:
            raise BlindspotError(
                f"{int(np.sum(named))} of {len(named)} captions of real images name it, and a level needs at least "
                f"{2 * LEAST_IMAGES} that do and as many that do not: give another --word."
            )
        chosen[generator.permutation(group)[: len(group) // 2]] = True
    inside, outside = (np.sort(energies[chosen & mask]) for mask in (named, ~named))
    levels = np.unique(energies[chosen & (energies > 0)])
    if not len(levels):
        raise BlindspotError("It fires in none of the real images that set its level: choose another concept.")
    found = (len(inside) - np.searchsorted(inside, levels)) / len(inside)
    wrong = (len(outside) - np.searchsorted(outside, levels)) / len(outside)
    best = len(levels) - 1 - int(np.argmax((found - wrong)[::-1]))
    shown = energies >= levels[best]
    return Level(float(levels[best]), simple_rate(shown[~chosen & named]), simple_rate(shown[~chosen & ~named]))


class Asked(NamedTuple):
    """What one source shows when it is asked for a concept, and when it is not."""

    rate: Rate
    control: Rate

    @property
    def rise(self) -> float:
        """How much more it shows the concept when asked."""
        return self.rate.value - self.control.value


class Finding(NamedTuple):
    """One concept in one model."""

    against: str
    share: float
    """The model's rise over that of `against`; NaN where that has none."""
    p: float
    """Two-sided, of a share of `LINE`."""
    blind: bool
    """Whether the share is below the line."""
    usable: bool
    """Whether the level and the comparison allow a verdict."""


def find(level: Level, asked: Mapping[str, Asked], model: str, against: str | None, order: Sequence[str]) -> Finding:
    """Compare a model with another one, or with the real images.

    Parameters
    ----------
    level
        The concept's.
    asked
        By model.
    model
        One of them.
    against
        What to compare with: a model or ``real``; None for the first of `order`, other than the model itself, that can
        draw the concept (its rise is `ABLE` of that of the real images or more), and real images where there is none.
    order
        Models, the likeliest to be without the blindspot first.
    """
    real = Asked(level.with_word, level.without)
    others = [name for name in order if name != model and name in asked]
    able = next((name for name in others if asked[name].rise >= ABLE * real.rise), "real")
    chosen = able if against is None or against == model else against
    first, second = asked[model], real if chosen == "real" else asked[chosen]
    weights = [(1.0, first.rate), (-1.0, first.control), (-LINE, second.rate), (LINE, second.control)]
    if first.control == second.control:  # one set of images, whose errors do not add up
        weights = [(1.0, first.rate), (LINE - 1.0, first.control), (-LINE, second.rate)]
    found = contrast(weights)
    able_to = contrast([(1.0, second.rate), (-1.0, second.control)])
    usable = level.balanced >= LEAST_BALANCED and able_to.value > 0 and able_to.p < FALSE_DISCOVERIES
    share = first.rise / second.rise if second.rise > 0 else float("nan")
    return Finding(chosen, share, found.p, found.value < 0, usable)


def verdicts(
    p: Float[np.ndarray, " tests"], blind: Bool[np.ndarray, " tests"], usable: Bool[np.ndarray, " tests"]
) -> tuple[Float[np.ndarray, " tests"], list[str]]:
    """q of all tests together (Benjamini-Hochberg; 1 for one that is not usable), and what each says at 5 %."""
    q = benjamini_hochberg(np.nan_to_num(np.asarray(p, np.float64), nan=1.0), np.asarray(usable, bool))
    said = [
        NOT_DECIDED if not (able and value < FALSE_DISCOVERIES) else TRUE_BLINDSPOT if below else PROMPTABLE
        for value, below, able in zip(q, blind, usable, strict=True)
    ]
    return q, said
