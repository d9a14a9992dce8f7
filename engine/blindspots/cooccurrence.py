"""Which concepts fire on the same tokens: the co-occurrence matrix Z^T Z of token codes, sparse and exact.

Z is tokens x concepts ("Conceptual Blindspots in Generative Image Models", sections D.5 and H). One row of Z^T Z lives
densely at a time; the cost is the number of pairs of codes that share a token, about tokens x sparsity^2.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from scipy import sparse


class Cooccurrence(NamedTuple):
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


def cooccurrence_matrix(codes: sparse.csr_matrix) -> Cooccurrence:
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
    return Cooccurrence(rows.shape[0], indptr, indices, sums, counts)


def token_rows(images: np.ndarray, tokens: int) -> np.ndarray:
    """[images * tokens] rows of a source's token codes that belong to the given images, in their order."""
    return (np.asarray(images)[:, None] * tokens + np.arange(tokens)).ravel()


class Neighbours(NamedTuple):
    """For each concept, its closest others, best first."""

    others: np.ndarray
    """[K, count] int32; -1 where there are no more."""
    values: np.ndarray
    """[K, count] float32; 0 where there are no more."""


def cooccurrence_neighbours(codes: sparse.csr_matrix, count: int) -> Neighbours:
    """The concepts with the highest cosine of token codes to each concept; of equal ones the smaller comes first.

    The value is (Z^T Z)_kj / sqrt((Z^T Z)_kk (Z^T Z)_jj), in [0, 1]: raw co-activation would name the most frequent
    concepts as everybody's neighbours.

    Parameters
    ----------
    codes : [tokens, K], non-negative.
    count : neighbours per concept.
    """
    rows = sparse.csr_matrix(codes, dtype=np.float32)
    columns = rows.tocsc()
    concepts = rows.shape[1]
    norms = np.sqrt(np.bincount(rows.indices, rows.data.astype(np.float64) ** 2, minlength=concepts))
    scale = np.divide(1.0, norms, out=np.zeros(concepts), where=norms > 0)
    others = np.full((concepts, count), -1, np.int32)
    values = np.zeros((concepts, count), np.float32)
    row_parts = (rows.indptr.astype(np.int64), rows.indices.astype(np.int32, copy=False), rows.data)
    column_parts = (columns.indptr.astype(np.int64), columns.indices.astype(np.int32, copy=False), columns.data)
    _strongest(*row_parts, *column_parts, scale, others, values)
    return Neighbours(others, values)


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
def _strongest(
    row_ptr, row_concepts, row_values, column_ptr, column_tokens, column_values, scale, others, values
):  # pragma: no cover - compiled
    concepts = len(scale)
    total = np.zeros(concepts)
    touched = np.empty(concepts, np.int32)
    for concept in range(concepts):
        count = 0
        for place in range(column_ptr[concept], column_ptr[concept + 1]):
            token = column_tokens[place]
            for entry in range(row_ptr[token], row_ptr[token + 1]):
                other = row_concepts[entry]
                product = np.float64(column_values[place]) * np.float64(row_values[entry])
                if not product > 0:
                    continue
                if total[other] == 0:
                    touched[count] = other
                    count += 1
                total[other] += product
        best, weakest = values[concept], values.shape[1] - 1
        for place in range(count):
            other = touched[place]
            cosine = np.float32(total[other] * scale[concept] * scale[other])
            if other != concept and weakest >= 0 and cosine >= best[weakest]:
                _insert(others[concept], best, other, cosine)
            total[other] = 0


@numba.njit(cache=True)
def _insert(others, values, other, value):  # pragma: no cover - compiled
    """Insert into a list sorted by falling value, then rising concept; -1 marks free places at its end."""
    place = len(values)
    while place > 0 and (
        others[place - 1] < 0 or value > values[place - 1] or (value == values[place - 1] and other < others[place - 1])
    ):
        if place < len(values):
            others[place], values[place] = others[place - 1], values[place - 1]
        place -= 1
    if place < len(values):
        others[place], values[place] = other, value
