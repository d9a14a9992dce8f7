"""Holds label scores against a known truth: does the right word score above wrong ones?

An atlas whose images have a ground truth (table `labels`) says which attribute value a concept stands for: the one that
its energy ranks with an average precision of at least 0.7 on images that did not choose it. That value's word is
right, other values' words are wrong, and all are scored by the captions as labels are; no model is needed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from engine.atlas.reader import Atlas
from engine.atlas.schema import REAL
from engine.blindspots.label_scores import balanced_accuracy, strong_images
from engine.blindspots.recognition import match_labels
from engine.errors import BlindspotError
from precompute.labelling.base import RealImages
from precompute.labelling.captions import Mentions

WRONG = 20
"""Wrong words that the right one is compared with."""


class CheckedConcept(NamedTuple):
    """A concept whose right word is known."""

    concept: int
    word: str
    precision: float
    """Average precision with which the concept's energy ranks the images that show it."""
    score: float
    """Of the right word."""
    best_wrong: float
    """The highest score of the wrong words."""
    wrong: str
    """Its word."""


def check_labels(atlas: Atlas, wrong: int = WRONG, seed: int = 0) -> list[CheckedConcept]:
    """Score the right word of every concept that stands for one, and `wrong` others, drawn at random.

    Raises
    ------
    BlindspotError
        If the atlas has no ground truth, too few words, or no concept that stands for one.
    """
    truth = atlas.labels()
    if truth is None:
        raise BlindspotError(f"The images of {atlas.path} have no ground truth to check label scores by.")
    real, values = RealImages(atlas, with_captions=True), sorted(set(truth["value"]))
    if len(values) <= wrong:
        raise BlindspotError(
            f"The ground truth of {atlas.path} has {len(values)} words: too few for {wrong} wrong ones."
        )
    matches = _matches(atlas, values)
    if not matches:
        raise BlindspotError(f"No concept of {atlas.path} stands for a word of its ground truth.")
    mentions, generator = Mentions(real.captions), np.random.default_rng(seed)
    used = np.concatenate(real.halves)
    said, found = {word: mentions(word) for word in values}, []
    for concept, (word, precision) in matches.items():
        others = generator.choice([value for value in values if value != word], wrong, replace=False)
        active = strong_images(real.energies(concept), real.halves)[used]
        scores = {name: balanced_accuracy(said[name][used], active).score for name in (word, *others)}
        best = max(others, key=lambda name: scores[name])
        found.append(CheckedConcept(concept, word, precision, scores[word], scores[best], str(best)))
    return found


def _matches(atlas: Atlas, values: list[str]) -> dict[int, tuple[str, float]]:
    """Concept -> its word and average precision: as the judge's stage found, or else from the truth."""
    known = atlas.recognition()
    if len(known):
        words = known["label"].str.rpartition(": ")[2]
        return {
            int(concept): (word, float(precision))
            for concept, word, precision in zip(known.index, words, known["precision"], strict=True)
            if word in values
        }
    truth, within = atlas.labels(), atlas.info.image_range(REAL)
    assert truth is not None
    truth = truth[truth["image"].isin(within)]
    shown = np.zeros((len(within), len(values)), bool)
    shown[truth["image"] - within.start, [values.index(value) for value in truth["value"]]] = True
    live = np.flatnonzero(~atlas.concepts["dead"].to_numpy(bool))
    return {one.concept: (values[one.label], one.precision) for one in match_labels(atlas.energy(REAL), shown, live)}
