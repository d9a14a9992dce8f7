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

from engine.blindspots.rows import BLOCK, Rows, column_groups

LEAST_PRECISION = 0.7
"""Average precision, on the half that did not choose, from which a match is kept."""
LEAST_IMAGES = 4
"""Images of a half that must show a label for it to be matched."""
CELLS = 1 << 20
"""Numbers of images x labels at once."""
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
    energy: Rows,
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
    counts = np.array([_count(shown, half) for half in halves])
    most = MOST_SHARE * np.array([len(half) for half in halves])[:, None]
    usable = np.flatnonzero(((counts >= LEAST_IMAGES) & (counts <= most)).all(axis=0))
    if not len(usable):
        return []
    found, asked = {}, {*map(int, concepts)}
    for first, columns in column_groups(energy):
        choosing, checking = (columns[half] for half in halves)
        for at in range(columns.shape[1]):
            if (concept := first + at) not in asked:
                continue
            ranked = _precisions(choosing[:, [at]], shown, halves[0], usable, counts[0][usable])
            best = usable[[ranked.argmax()]]
            precision = float(_precisions(checking[:, [at]], shown, halves[1], best, counts[1][best])[0])
            if precision >= least:
                found[concept] = LabelMatch(concept, int(best[0]), precision, int(counts[1][best[0]]))
    return [found[concept] for concept in map(int, concepts) if concept in found]


def _count(shown: Bool[np.ndarray, "images labels"], rows: np.ndarray) -> np.ndarray:
    """How many of some images show each label."""
    parts = np.array_split(rows, -(-len(rows) // BLOCK) or 1)
    return np.sum([shown[part].sum(axis=0) for part in parts], axis=0)


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
    images, labels = np.arange(len(shown)), np.arange(shown.shape[1])
    return _precisions(column, shown, images, labels, _count(shown, images))


def _precisions(
    column: sparse.csc_matrix, shown: np.ndarray, rows: np.ndarray, labels: np.ndarray, total: np.ndarray
) -> np.ndarray:
    """The same where the column's rows are some of the images, for some labels, of which so many of them show each."""
    scores = column.data
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.r_[np.diff(scores[order]) != 0, True]) if len(order) else np.zeros(0, np.int64)
    images, ranks = rows[column.indices[order]], np.r_[ends + 1, len(rows)]
    found = np.empty(len(labels))
    step = max(1, CELLS // max(1, len(images)))
    for start in range(0, len(labels), step):
        some = slice(start, start + step)
        hits = np.cumsum(shown[np.ix_(images, labels[some])], axis=0, dtype=np.int64)[ends]
        hits = np.vstack([hits, total[some]])
        gains = np.diff(hits, axis=0, prepend=0)
        found[some] = (gains * hits / ranks[:, None]).sum(axis=0) / total[some]
    return found
