"""Which concepts occur together: the co-occurrence matrix Z^T Z, exact.

Z has one row per image, its energies ("Conceptual Blindspots in Generative Image Models", sections 3, D.5 and H), or
one row per token, its codes. Some rows of Z^T Z live densely at a time while the codes are read in blocks; the cost is
the number of pairs of codes that share a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numba
import numpy as np
from scipy import sparse

from engine.blindspots.rows import BLOCK, Rows, row_blocks

CELLS = 8_000_000
"""Entries of Z^T Z that are summed at once."""


class Cooccurrence(NamedTuple):
    """Upper triangle of Z^T Z, rows sorted by concept."""

    tokens: int
    """Rows of Z: tokens or images of the source."""
    indptr: np.ndarray
    """[K + 1] int64."""
    indices: np.ndarray
    """[entries] int32, the second concept; not below the row's own."""
    sums: np.ndarray
    """[entries] float64, sum over rows of z_tj z_tk; all above zero."""
    counts: np.ndarray
    """[entries] int32, rows in which both fire."""

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


def cooccurrence_matrix(codes: Rows) -> Cooccurrence:
    """The co-occurrence matrix of one source, whole.

    Parameters
    ----------
    codes : [rows, K], one row per token or image, non-negative, concepts of a row distinct. Sums are float64, so for
        codes stored as float16 they do not depend on the order of the tokens.
    """
    parts = list(cooccurrence_blocks(codes))
    indptr = np.sum([part.indptr for part in parts], axis=0)
    joined = (np.concatenate([getattr(part, name) for part in parts]) for name in ("indices", "sums", "counts"))
    return Cooccurrence(codes.shape[0], indptr, *joined)


def cooccurrence_blocks(codes: Rows, step: int = BLOCK, cells: int = CELLS) -> Iterator[Cooccurrence]:
    """The co-occurrence matrix of one source, some of its rows at a time; the other rows of each part are empty.

    Every part costs one pass over the codes, and memory is `cells` sums whatever the number of images.

    Parameters
    ----------
    codes : as for `cooccurrence_matrix`.
    step : rows of the codes that are read at once.
    cells : entries of the matrix that are summed at once.
    """
    concepts = codes.shape[1]
    height = max(1, min(concepts, cells // max(concepts, 1)))
    for first in range(0, concepts, height):
        sums, counts = products(codes, first, min(first + height, concepts), step)
        rows, indices = np.nonzero(counts)
        indptr = np.zeros(concepts + 1, np.int64)
        indptr[first + 1 : first + len(counts) + 1] = np.bincount(rows, minlength=len(counts))
        yield Cooccurrence(
            codes.shape[0], np.cumsum(indptr), indices.astype(np.int32), sums[rows, indices], counts[rows, indices]
        )


def products(
    codes: Rows, first: int, last: int, step: int = BLOCK, *, whole: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Rows `first` to `last` of Z^T Z and of its counts, dense, [last - first, K] float64 and int32.

    With `whole` also what lies below the diagonal.
    """
    sums, counts = np.zeros((last - first, codes.shape[1])), np.zeros((last - first, codes.shape[1]), np.int32)
    for _, block in row_blocks(codes, step):
        rows = sparse.csr_matrix(block, dtype=np.float32)
        if not rows.has_sorted_indices:
            rows = rows.sorted_indices()
        _add_products(rows.indptr, rows.indices, rows.data, first, whole, sums, counts)
    return sums, counts


def token_rows(images: np.ndarray, tokens: int) -> np.ndarray:
    """[images * tokens] rows of a source's token codes that belong to the given images, in their order."""
    return (np.asarray(images)[:, None] * tokens + np.arange(tokens)).ravel()


class Neighbours(NamedTuple):
    """For each concept, its closest others, best first."""

    others: np.ndarray
    """[K, count] int32; -1 where there are no more."""
    values: np.ndarray
    """[K, count] float32; 0 where there are no more."""


def cooccurrence_neighbours(codes: Rows, count: int, step: int = BLOCK) -> Neighbours:
    """The concepts with the highest cosine of token codes to each concept; of equal ones the smaller comes first.

    The value is (Z^T Z)_kj / sqrt((Z^T Z)_kk (Z^T Z)_jj), in [0, 1]: raw co-activation would name the most frequent
    concepts as everybody's neighbours.

    Parameters
    ----------
    codes : [tokens, K], non-negative.
    count : neighbours per concept.
    step : rows of the codes that are read at once.
    """
    concepts = codes.shape[1]
    norms = np.sqrt(squared_norms(codes, step))
    scale = np.divide(1.0, norms, out=np.zeros(concepts), where=norms > 0)
    others = np.full((concepts, count), -1, np.int32)
    values = np.zeros((concepts, count), np.float32)
    height = max(1, min(concepts, CELLS // max(concepts, 1)))
    for first in range(0, concepts, height):
        last = min(first + height, concepts)
        sums, _ = products(codes, first, last, step, whole=True)
        _strongest(sums, first, scale, others[first:last], values[first:last])
    return Neighbours(others, values)


def squared_norms(codes: Rows, step: int = BLOCK) -> np.ndarray:
    """[K] float64 diagonal of Z^T Z."""
    total = np.zeros(codes.shape[1])
    for _, block in row_blocks(codes, step):
        np.add.at(total, block.indices, np.square(block.data, dtype=np.float64))
    return total


@numba.njit(cache=True)
def _add_products(indptr, indices, values, first, whole, sums, counts):  # pragma: no cover - compiled
    """Add a block's products to rows `first` and following; the concepts of a row are sorted."""
    height = len(sums)
    starts = np.zeros(height + 1, np.int64)
    for entry in range(len(indices)):
        concept = indices[entry] - first
        if 0 <= concept < height and values[entry] > 0:
            starts[concept + 1] += 1
    starts = np.cumsum(starts)
    entries, tokens = np.empty(starts[-1], np.int64), np.empty(starts[-1], np.int64)
    filled = starts.copy()
    for token in range(len(indptr) - 1):
        for entry in range(indptr[token], indptr[token + 1]):
            concept = indices[entry] - first
            if 0 <= concept < height and values[entry] > 0:
                entries[filled[concept]], tokens[filled[concept]] = entry, token
                filled[concept] += 1
    for concept in range(height):
        for place in range(starts[concept], starts[concept + 1]):
            own = np.float64(values[entries[place]])
            begin = indptr[tokens[place]] if whole else entries[place]
            for entry in range(begin, indptr[tokens[place] + 1]):
                value = np.float64(values[entry])
                if value > 0:
                    sums[concept, indices[entry]] += own * value
                    counts[concept, indices[entry]] += 1


@numba.njit(cache=True)
def _strongest(sums, first, scale, others, values):  # pragma: no cover - compiled
    weakest = values.shape[1] - 1
    for row in range(len(sums)):
        concept = first + row
        for other in range(sums.shape[1]):
            if other == concept or not sums[row, other] > 0:
                continue
            cosine = np.float32(sums[row, other] * scale[concept] * scale[other])
            if weakest >= 0 and cosine >= values[row, weakest]:
                _insert(others[row], values[row], other, cosine)


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
