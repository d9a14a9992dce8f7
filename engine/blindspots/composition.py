"""The co-occurrence matrix of token codes, Z^T Z, sparse and exact: its L0 curve and what it has that reality lacks.

Z is tokens x concepts (paper 004, sections D.5 and H). Only the upper triangle is stored, diagonal included, with the
number of tokens behind every entry. One row lives densely at a time; the cost is the number of pairs of codes that
share a token, about tokens x sparsity^2 / 2, and the memory that of the entries.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from scipy import sparse

from engine.errors import BlindspotError


class Composition(NamedTuple):
    """Upper triangle of Z^T Z, rows sorted by concept."""

    tokens: int
    """Tokens of the source."""
    indptr: np.ndarray
    """[K + 1] int64."""
    indices: np.ndarray
    """[entries] int32, the second concept; not below the row's own."""
    sums: np.ndarray
    """[entries] float64, sum over tokens of z_tj z_tk; all above zero."""
    counts: np.ndarray
    """[entries] int32, tokens on which both fire."""

    @property
    def concepts(self) -> int:
        """Size of the dictionary, K."""
        return len(self.indptr) - 1

    @property
    def rows(self) -> np.ndarray:
        """[entries] int32, the first concept of every entry."""
        return np.repeat(np.arange(self.concepts, dtype=np.int32), np.diff(self.indptr))

    def diagonal(self, values: np.ndarray) -> np.ndarray:
        """[K] the values of the entries (k, k), 0 where a concept is silent."""
        found = np.zeros(self.concepts, values.dtype)
        live = np.flatnonzero(np.diff(self.indptr))
        found[live] = values[self.indptr[live]]
        return found

    def matrix(self) -> sparse.csr_matrix:
        """[K, K] the whole symmetric Z^T Z."""
        upper = sparse.csr_matrix((self.sums, self.indices, self.indptr), (self.concepts, self.concepts))
        return upper + sparse.triu(upper, 1).T.tocsr()


def token_composition(codes: sparse.csr_matrix) -> Composition:
    """The co-occurrence matrix of one source.

    Parameters
    ----------
    codes : [tokens, K], non-negative, one row per token, concepts of a row distinct. Sums are float64, so for codes
        stored as float16 they do not depend on the order of the tokens.
    """
    rows = sparse.csr_matrix(codes, dtype=np.float32)
    if not rows.has_sorted_indices:
        rows = rows.sorted_indices()
    columns = rows.tocsc()
    row_parts = (rows.indptr.astype(np.int64), rows.indices.astype(np.int32, copy=False), rows.data)
    column_parts = (columns.indptr.astype(np.int64), columns.indices.astype(np.int32, copy=False))
    indptr = np.concatenate([[0], np.cumsum(_row_sizes(*row_parts, *column_parts))])
    indices = np.empty(indptr[-1], np.int32)
    sums, counts = np.empty(indptr[-1], np.float64), np.empty(indptr[-1], np.int32)
    _fill(*row_parts, *column_parts, indptr, indices, sums, counts)
    return Composition(rows.shape[0], indptr, indices, sums, counts)


def l0_curve(composition: Composition, eps: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """How many entries of Z^T Z / scale exceed each threshold (the paper's L0 norm at eps).

    Parameters
    ----------
    eps : [n] thresholds, rising, not negative.
    scale : the number of images, so that sources of different size can share an axis.

    Returns
    -------
    ndarray
        [n] int64 entries of the whole symmetric matrix, its diagonal included.
    """
    off = _exceed(composition.sums, eps, scale)
    return 2 * off - _exceed(composition.diagonal(composition.sums), eps, scale)


def unique_share(
    real: Composition, model: Composition, eps: np.ndarray, *, real_scale: float = 1.0, model_scale: float = 1.0
) -> np.ndarray:
    """Share of a model's entries above eps that the real matrix does not have above eps; nan where the model has none.

    Finite samples make some pairs look unique: one real half against the other says how many.

    Parameters
    ----------
    real, model : over the same dictionary.
    eps : [n] thresholds, rising, not negative.
    real_scale, model_scale : images of each.

    Raises
    ------
    BlindspotError
        If the dictionaries differ.
    """
    there = aligned(model, real, real.sums) / real_scale
    common = np.minimum(model.sums / model_scale, there)
    both = 2 * _exceed(common, eps) - _exceed(model.diagonal(common), eps)
    entries = l0_curve(model, eps, model_scale)
    return np.divide(entries - both, entries, out=np.full(len(eps), np.nan), where=entries > 0)


def aligned(at: Composition, other: Composition, values: np.ndarray) -> np.ndarray:
    """[entries of `at`] the other composition's `values` at the places of `at`, 0 where it has no entry."""
    if at.concepts != other.concepts:
        raise BlindspotError(
            f"Compositions of {at.concepts} and {other.concepts} concepts cannot be compared: use one dictionary."
        )
    found = np.zeros(len(at.indices), values.dtype)
    _align(at.indptr, at.indices, other.indptr, other.indices, values, found)
    return found


def _exceed(values: np.ndarray, eps: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """[n] how many values / scale are above each threshold."""
    below = np.searchsorted(np.asarray(eps, np.float64) * scale, values, side="left")
    return np.cumsum(np.bincount(below, minlength=len(eps) + 1)[:0:-1])[::-1]


@numba.njit(cache=True)
def _row_sizes(row_ptr, row_concepts, row_values, column_ptr, column_tokens):  # pragma: no cover - compiled
    concepts = len(column_ptr) - 1
    last = np.full(concepts, -1, np.int32)
    sizes = np.zeros(concepts, np.int64)
    for concept in range(concepts):
        for place in range(column_ptr[concept], column_ptr[concept + 1]):
            token = column_tokens[place]
            own = False
            for entry in range(row_ptr[token], row_ptr[token + 1]):
                other = row_concepts[entry]
                if other == concept:
                    own = row_values[entry] > 0
                if own and row_values[entry] > 0 and last[other] != concept:
                    last[other] = concept
                    sizes[concept] += 1
    return sizes


@numba.njit(cache=True)
def _fill(
    row_ptr, row_concepts, row_values, column_ptr, column_tokens, indptr, indices, sums, counts
):  # pragma: no cover - compiled
    concepts = len(column_ptr) - 1
    total = np.zeros(concepts)
    times = np.zeros(concepts, np.int32)
    for concept in range(concepts):
        filled = indptr[concept]
        for place in range(column_ptr[concept], column_ptr[concept + 1]):
            token = column_tokens[place]
            own = np.float64(0)
            for entry in range(row_ptr[token], row_ptr[token + 1]):
                other, value = row_concepts[entry], np.float64(row_values[entry])
                if other == concept:
                    own = value
                if own > 0 and value > 0:
                    if times[other] == 0:
                        indices[filled] = other
                        filled += 1
                    total[other] += own * value
                    times[other] += 1
        found = indices[indptr[concept] : filled]
        found.sort()
        for place in range(len(found)):
            other = found[place]
            sums[indptr[concept] + place], counts[indptr[concept] + place] = total[other], times[other]
            total[other], times[other] = 0, 0


@numba.njit(cache=True)
def _align(indptr, indices, other_ptr, other_indices, values, found):  # pragma: no cover - compiled
    for row in range(len(indptr) - 1):
        place, last = other_ptr[row], other_ptr[row + 1]
        for entry in range(indptr[row], indptr[row + 1]):
            while place < last and other_indices[place] < indices[entry]:
                place += 1
            if place < last and other_indices[place] == indices[entry]:
                found[entry] = values[place]
