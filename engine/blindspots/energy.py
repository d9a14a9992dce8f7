"""One streaming pass over token codes: image energies, their sufficient statistics and the best images per concept.

The energy of concept k in image x is the sum of its codes over ALL tokens, xi_k(x) = sum_t z_tk; exemplars rank by the
mean code over the PATCH tokens only. The pass touches each stored code once, so its cost is the
number of non-zero codes and not images x tokens x concepts, and its memory is one chunk plus a few numbers per concept.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from scipy import sparse

from engine.blindspots.significance import Moments
from engine.errors import BlindspotError


class SourceEnergies(NamedTuple):
    """What the pass knows of one source when it has seen all of its images."""

    moments: Moments
    """Images, sums and sums of squares of the image energies."""
    max: np.ndarray
    """[K] float32, the largest image energy."""
    fires: np.ndarray
    """[K] int64, token codes above zero."""
    images_active: np.ndarray
    """[K] int64, images with at least one token code above zero."""
    exemplars: np.ndarray
    """[K, count] int32, the images with the highest mean patch code, best first; -1 where there are no more."""
    scores: np.ndarray
    """[K, count] float32, their mean patch codes; 0 where there are no more."""


class EnergyPass:
    """Accumulates the statistics of one source from chunks of its token codes.

    The result does not depend, to the last bit, on how the images were cut into chunks. Energies are summed in
    float64, rounded to the float32 that is stored, and the moments are those of the stored values.

    Parameters
    ----------
    concepts : size of the dictionary, K.
    tokens : tokens per image, prefix first.
    prefix_tokens : how many of them are no patches.
    exemplars : images to remember per concept.
    first_image : global id of the source's first image.
    """

    def __init__(
        self, concepts: int, tokens: int, prefix_tokens: int, *, exemplars: int = 12, first_image: int = 0
    ) -> None:
        if not 0 <= prefix_tokens < tokens:
            raise BlindspotError(f"{prefix_tokens} prefix tokens leave no patch among {tokens} tokens an image.")
        self.concepts, self.tokens, self.prefix_tokens = concepts, tokens, prefix_tokens
        self._images = 0
        self._first_image = first_image
        self._sum = np.zeros(concepts)
        self._sum_sq = np.zeros(concepts)
        self._max = np.zeros(concepts, np.float32)
        self._fires = np.zeros(concepts, np.int64)
        self._active = np.zeros(concepts, np.int64)
        self._exemplars = np.full((concepts, exemplars), -1, np.int32)
        self._scores = np.zeros((concepts, exemplars), np.float32)

    def add(self, indptr: np.ndarray, indices: np.ndarray, values: np.ndarray) -> sparse.csr_matrix:
        """Take the codes of some further whole images, in order.

        Parameters
        ----------
        indptr : [images * tokens + 1], one row per token, prefix first; need not start at 0.
        indices : concepts, any integer dtype.
        values : codes, any float dtype; entries that are not above zero count as silent.

        Returns
        -------
        csr_matrix
            [images, K] float32, the image energies, concepts ascending, no stored zeros.

        Raises
        ------
        BlindspotError
            If the rows are no whole images or a concept is outside the dictionary.
        """
        rows = len(indptr) - 1
        if rows % self.tokens:
            raise BlindspotError(f"{rows} rows of token codes are no whole images of {self.tokens} tokens each.")
        start, stop = int(indptr[0]), int(indptr[-1])
        indices = np.asarray(indices[start:stop]).astype(np.int32)
        values = np.asarray(values[start:stop]).astype(np.float32)
        if indices.size and (indices.min() < 0 or indices.max() >= self.concepts):
            raise BlindspotError(
                f"Token codes name concepts {indices.min()} to {indices.max()}, but the dictionary has {self.concepts}."
            )
        images = rows // self.tokens
        out_indptr, out_indices, out_values = _accumulate(
            np.asarray(indptr, np.int64) - start,
            indices,
            values,
            self.tokens,
            self.prefix_tokens,
            self._first_image + self._images,
            self._sum,
            self._sum_sq,
            self._max,
            self._fires,
            self._active,
            self._exemplars,
            self._scores,
        )
        self._images += images
        return sparse.csr_matrix((out_values, out_indices, out_indptr), shape=(images, self.concepts))

    def finish(self) -> SourceEnergies:
        """The statistics of all images so far."""
        return SourceEnergies(
            Moments(self._images, self._sum.copy(), self._sum_sq.copy()),
            self._max.copy(),
            self._fires.copy(),
            self._active.copy(),
            self._exemplars.copy(),
            self._scores.copy(),
        )


@numba.njit(cache=True)
def _accumulate(
    indptr, indices, values, tokens, prefix, first_image, sums, sums_sq, maxima, fires, active, exemplars, scores
):  # pragma: no cover - compiled
    images = (len(indptr) - 1) // tokens
    concepts = len(sums)
    energy = np.zeros(concepts)
    patch = np.zeros(concepts)
    touched = np.empty(concepts, np.int32)
    out_indptr = np.zeros(images + 1, np.int64)
    out_indices = np.empty(len(indices), np.int32)
    out_values = np.empty(len(indices), np.float32)
    filled = 0
    for image in range(images):
        count = 0
        for token in range(tokens):
            row = image * tokens + token
            for entry in range(indptr[row], indptr[row + 1]):
                value = values[entry]
                if not value > 0:
                    continue
                concept = indices[entry]
                if energy[concept] == 0:
                    touched[count] = concept
                    count += 1
                energy[concept] += value
                fires[concept] += 1
                if token >= prefix:
                    patch[concept] += value
        seen = np.sort(touched[:count])
        for concept in seen:
            stored = np.float32(energy[concept])
            out_indices[filled] = concept
            out_values[filled] = stored
            filled += 1
            sums[concept] += np.float64(stored)
            sums_sq[concept] += np.float64(stored) * np.float64(stored)
            maxima[concept] = max(maxima[concept], stored)
            active[concept] += 1
            _remember(
                exemplars[concept], scores[concept], first_image + image, np.float32(patch[concept] / (tokens - prefix))
            )
            energy[concept] = 0
            patch[concept] = 0
        out_indptr[image + 1] = filled
    return out_indptr, out_indices[:filled].copy(), out_values[:filled].copy()


@numba.njit(cache=True)
def _remember(images, scores, image, score):  # pragma: no cover - compiled
    """Insert into a list sorted by falling score; of equal scores the earlier image stays first."""
    last = len(scores) - 1
    if last < 0 or not score > scores[last]:
        return
    place = last
    while place > 0 and score > scores[place - 1]:
        scores[place] = scores[place - 1]
        images[place] = images[place - 1]
        place -= 1
    scores[place] = score
    images[place] = image
