"""Which concepts fire on the same tokens: the largest entries of each row of Z^T Z, never forming the matrix.

Z is tokens x concepts (paper 004, section D.5). One row of Z^T Z lives at a time; the cost is the number of pairs of
codes that share a token, about tokens x sparsity^2.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from scipy import sparse


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
