"""Which concept stands for which label: concepts whose image energy ranks the images that show a label first.

A concept is matched on one half of the images and kept only where the match holds on the other half, so that the best
of many labels is not taken for a good one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import sparse

LEAST_PRECISION = 0.7
"""Average precision, on the half that did not choose, from which a match is kept."""
LEAST_IMAGES = 4
"""Images of a half that must show a label for it to be matched."""
MOST_SHARE = 0.5
"""Share of the images above which a label tells nothing apart: any concept would rank it well."""


class LabelMatch(NamedTuple):
    """A concept and the label it stands for."""

    concept: int
    label: int
    precision: float
    """Average precision on the half that did not choose the label."""
    images: int
    """Images of that half that show the label."""


def match_labels(
    energy: sparse.csr_matrix,
    shown: Bool[np.ndarray, "images labels"],
    concepts: Sequence[int] | np.ndarray,
    seed: int = 0,
    least: float = LEAST_PRECISION,
) -> list[LabelMatch]:
    """Match concepts to labels.

    Parameters
    ----------
    energy
        Image energies [images, concepts].
    shown
        Which image shows which label.
    concepts
        Those to match, for example the live ones.
    seed
        Of the halves.
    least
        Average precision that a match must reach on the half that did not choose it.
    """
    order = np.random.default_rng(seed).permutation(energy.shape[0])
    halves = np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])
    counts = np.array([shown[half].sum(axis=0) for half in halves])
    most = MOST_SHARE * np.array([len(half) for half in halves])[:, None]
    usable = np.flatnonzero(((counts >= LEAST_IMAGES) & (counts <= most)).all(axis=0))
    if not len(usable):
        return []
    choosing, checking = ((energy[half].tocsc(), shown[half][:, usable]) for half in halves)
    found = []
    for concept in map(int, concepts):
        best = int(average_precisions(choosing[0][:, [concept]], choosing[1]).argmax())
        precision = float(average_precisions(checking[0][:, [concept]], checking[1][:, [best]])[0])
        if precision >= least:
            found.append(LabelMatch(concept, int(usable[best]), precision, int(checking[1][:, best].sum())))
    return found


def average_precisions(
    column: sparse.csc_matrix, shown: Bool[np.ndarray, "images labels"]
) -> Float[np.ndarray, " labels"]:
    """Average precision of one concept's energies for every label: sum over thresholds of precision x gain in recall.

    Parameters
    ----------
    column
        Energies [images, 1]; equal ones, such as the zeros, share a threshold.
    shown
        Which image shows which label; each label is shown by at least one.
    """
    images, scores = column.indices, column.data
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.r_[np.diff(scores[order]) != 0, True]) if len(order) else np.zeros(0, np.int64)
    hits = np.cumsum(shown[images[order]], axis=0, dtype=np.int64)[ends]
    total = shown.sum(axis=0, dtype=np.int64)
    hits, ranks = np.vstack([hits, total]), np.r_[ends + 1, len(shown)]
    gains = np.diff(hits, axis=0, prepend=0)
    return (gains * hits / ranks[:, None]).sum(axis=0) / total
