"""Labels without a model: the caption words that name concepts, scored by captions that they were not chosen from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from engine.atlas.schema import REAL
from engine.blindspots.label_scores import LabelScore, score_halves
from precompute.labelling.base import ConceptLabel, RealImages, cleaned_label
from precompute.stages.words import caption_terms, name_concepts

CAPTIONS = "captions"
WORDS = 6
"""Terms of a concept from which its label is taken."""


class Mentions:
    """Which captions mention a label: all words of one of its parts between commas."""

    def __init__(self, captions: Sequence[str]) -> None:
        self._images: dict[str, list[int]] = {}
        for image, caption in enumerate(captions):
            for term in caption_terms(caption):
                self._images.setdefault(term, []).append(image)
        self._count = len(captions)

    def __call__(self, label: str) -> np.ndarray:
        """[captions] bool."""
        found = np.zeros(self._count, bool)
        for part in label.split(","):
            terms = caption_terms(part)
            if terms:
                hits = set.intersection(*(set(self._images.get(term, ())) for term in terms))
                found[list(hits)] = True
        return found


def label_by_captions(
    real: RealImages, concepts: Sequence[int], report: Callable[[int, int], None] = lambda done, total: None
) -> list[ConceptLabel]:
    """Label concepts by the words that their images' captions have more often than others.

    The label is chosen from all captions. Its score is that of labels chosen in the same way from one half of the
    images, on the other half, both ways: what was chosen because it fits by chance scores as chance does.
    """
    atlas, mentions = real.atlas, Mentions(real.captions)
    before, energy = atlas.concepts, atlas.energy(REAL)
    named = None
    if (before["label_origin"] != CAPTIONS).any():
        named = name_concepts(energy, real.captions, WORDS)
    by_half = [
        [one.label if one.origin == CAPTIONS else "" for one in
         name_concepts(energy[half], [real.captions[image] for image in half], WORDS)]
        for half in reversed(real.halves)
    ]  # fmt: skip
    found = []
    for done, concept in enumerate(concepts):
        report(done, len(concepts))
        label = str(before["label"].iat[concept])
        if before["label_origin"].iat[concept] != CAPTIONS and named is not None:
            label = named[concept].label if named[concept].origin == CAPTIONS else ""
        if label := cleaned_label(label):
            said = [mentions(labels[concept]) for labels in by_half]
            score = score_halves(real.energies(concept), said, real.halves)
            found.append(ConceptLabel(concept, label, CAPTIONS, score))
    report(len(concepts), len(concepts))
    return found


def score_text(real: RealImages, concept: int, label: str) -> LabelScore:
    """The score of a label that was not chosen from the images: do captions that mention it predict the concept?"""
    said = Mentions(real.captions)(label)
    return score_halves(real.energies(concept), (said, said), real.halves)
