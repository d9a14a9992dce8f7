"""Does a concept's label predict where the concept is active? Balanced accuracy on images the label was not made from.

These are the detection scores of LLM auto-interpretation ("Automatically Interpreting Millions of Features in Large
Language Models", arXiv:2410.13928; Bills et al. 2023, "Language models can explain neurons in language models"), on
images: of those in which the concept is strong and of those in which it is not, the share that the label calls right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import betaincinv

BEST = 10
"""A concept is strong in an image if its energy is at least half the mean of this many highest ones."""
LEAST_SCORE = 0.6
"""Balanced accuracy below which a label is uncertain, as it is where the interval reaches down to chance, 0.5."""
UNCERTAIN_MARK = " (?)"
"""Behind an uncertain label wherever it is shown."""
TAIL = 0.025
"""Probability beyond either end of a 95 % interval."""


class LabelScore(NamedTuple):
    """How well a label predicts activation."""

    score: float
    """Balanced accuracy; 0.5 is chance, NaN where there are no active or no silent images."""
    low: float
    """Lower end of its 95 % interval."""
    high: float
    images: int
    """Held-out images, active and silent ones together."""


class Halves(NamedTuple):
    """Two random halves of the real images, positions rising; what is made from one is scored on the other."""

    first: np.ndarray
    second: np.ndarray


def split_halves(images: int, seed: int = 0) -> Halves:
    """Split `images` positions at random."""
    order = np.random.default_rng(seed).permutation(images)
    return Halves(np.sort(order[: images // 2]), np.sort(order[images // 2 :]))


def strong_from(energies: Float[np.ndarray, " n"]) -> float:
    """The energy from which a concept counts as strong: half the mean of the `BEST` highest; infinite if all are 0."""
    best = np.sort(energies[energies > 0])[::-1][:BEST]
    return float(best.mean() / 2) if len(best) else np.inf


def balanced_accuracy(said: Bool[np.ndarray, " n"], active: Bool[np.ndarray, " n"]) -> LabelScore:
    """Mean of the shares of active images that the label is said of, and of silent ones that it is not said of.

    The interval joins those of the two shares by squares, as Newcombe's does for a difference (1998, "Interval
    estimation for the difference between independent proportions", method 10), but from exact ones: with the few
    images that a reader is asked about, Wilson's cover too rarely where the shares are near 1.
    """
    active, said = np.asarray(active, bool), np.asarray(said, bool)
    counts = int(active.sum()), int((~active).sum())
    if not all(counts):
        return LabelScore(np.nan, np.nan, np.nan, len(active))
    right = int((said & active).sum()), int((~said & ~active).sum())
    shares = [hits / count for hits, count in zip(right, counts, strict=True)]
    bounds = [exact_interval(hits, count) for hits, count in zip(right, counts, strict=True)]
    score = sum(shares) / 2
    down, up = (
        np.sqrt(sum((share - bound[side]) ** 2 for share, bound in zip(shares, bounds, strict=True))) / 2
        for side in (0, 1)
    )
    return LabelScore(score, float(max(score - down, 0.0)), float(min(score + up, 1.0)), len(active))


def exact_interval(hits: int, count: int) -> tuple[float, float]:
    """Clopper and Pearson's 95 % interval of a share."""
    low = float(betaincinv(hits, count - hits + 1, TAIL)) if hits else 0.0
    high = float(betaincinv(hits + 1, count - hits, 1 - TAIL)) if hits < count else 1.0
    return float(low), float(high)


def strong_images(energies: Float[np.ndarray, " images"], halves: Halves) -> Bool[np.ndarray, " images"]:
    """Where a concept is strong, from its energies; from which energy on in a half is measured in the other one."""
    active = np.zeros(len(energies), bool)
    for half, other in zip(halves, reversed(halves), strict=True):
        active[half] = energies[half] >= strong_from(energies[other])
    return active


def score_halves(
    energies: Float[np.ndarray, " images"], said: Sequence[Bool[np.ndarray, " images"]], halves: Halves
) -> LabelScore:
    """Score what labels that were made from one half say of the other one, both ways.

    Parameters
    ----------
    energies
        Of one concept over the real images.
    said
        Two masks over all images: of which images the label made from the second half is said, and that made from the
        first one. A label that was made from neither is given twice.
    halves
        The first mask counts in the first half, the second in the second.
    """
    active = strong_images(energies, halves)[np.concatenate(halves)]
    return balanced_accuracy(np.concatenate([mask[half] for mask, half in zip(said, halves, strict=True)]), active)


def is_uncertain(score: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Whether labels are hardly better than chance, or were not scored, from their scores' and lower ends."""
    return ~((np.asarray(score, np.float64) >= LEAST_SCORE) & (np.asarray(low, np.float64) > 0.5))


def label_sentence(origin: str, score: float, low: float, high: float, images: int, fuzzing: float) -> str:
    """Say where a label comes from and how well it predicts its concept, in one line."""
    sentence = f"Label from {'a person' if origin == 'person' else origin}"
    if not np.isfinite(score):
        return f"{sentence}, not scored."
    sentence += f": predicts activation on {images} held-out images with balanced accuracy {score:.2f}"
    sentence += f" ({low:.2f} to {high:.2f}; chance is 0.50)"
    if np.isfinite(fuzzing):
        sentence += f", on masked crops {fuzzing:.2f}"
    uncertain = origin != "person" and bool(is_uncertain(np.array(score), np.array(low)))
    return f"{sentence}; it is uncertain." if uncertain else f"{sentence}."
