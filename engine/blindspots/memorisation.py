"""Is a drawn image a copy? Candidates by small divergence, confirmed by the nearest real image.

A small divergence can also mean that both images are plain. So each candidate's similarity to its nearest real image is
held against how near real images are to each other: p is the share of real images whose nearest OTHER real image is at
least as similar. If drawn images were fresh draws from reality, p would be uniform (a conformal p-value), so at most
`level` of them would be confirmed by chance. Real images with duplicates in the corpus make p larger: the test errs on
the side of innocence there.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from engine.errors import BlindspotError


class Candidates(NamedTuple):
    """Memorisation candidates, smallest divergence first."""

    pairs: np.ndarray
    """[n] positions of the pairs."""
    l2: np.ndarray
    """[n] divergence."""
    nearest: np.ndarray
    """[n] the nearest real image."""
    similarity: np.ndarray
    """[n] its cosine similarity."""
    own: np.ndarray
    """[n] bool, whether it is the real image of the same pair."""
    p: np.ndarray
    """[n] share of real images that have a real neighbour at least as similar."""
    confirmed: np.ndarray
    """[n] bool, p <= level."""


def memorisation_candidates(
    l2: np.ndarray,
    nearest: np.ndarray,
    similarity: np.ndarray,
    own: np.ndarray,
    natural: np.ndarray,
    *,
    count: int = 100,
    level: float = 0.01,
) -> Candidates:
    """The pairs of smallest divergence and whether they are nearer to a real image than real images are to each other.

    Parameters
    ----------
    l2 : [pairs] divergence (`divergence.pair_divergence`).
    nearest, similarity : [pairs] the real image nearest to each drawn one, over the whole real corpus, and its cosine.
    own : [pairs] the real image of each pair, in the ids of `nearest`.
    natural : [real images] cosine of each real image to its nearest other real image.
    count : candidates to return.
    level : confirmation level; p cannot be below 1 / (real images + 1).

    Raises
    ------
    BlindspotError
        If the arrays do not describe the same pairs or there is no real image to compare with.
    """
    if not len(l2) == len(nearest) == len(similarity) == len(own):
        raise BlindspotError(
            f"Memorisation needs one nearest real image per pair, but there are {len(l2)} divergences, {len(nearest)} "
            f"neighbours, {len(similarity)} similarities and {len(own)} real images: search the index for all pairs."
        )
    if not len(natural):
        raise BlindspotError("Memorisation is judged against the real images' own neighbours: give at least one.")
    pairs = np.argsort(np.asarray(l2), kind="stable")[:count]
    ordered = np.sort(np.asarray(natural, np.float64))
    found = np.asarray(similarity, np.float64)[pairs]
    as_near = len(ordered) - np.searchsorted(ordered, found, side="left")
    p = (1 + as_near) / (1 + len(ordered))
    nearest = np.asarray(nearest)[pairs]
    return Candidates(pairs, np.asarray(l2)[pairs], nearest, found, nearest == np.asarray(own)[pairs], p, p <= level)
