"""Codes and energies that are read some rows at a time: memory does not grow with the number of images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from scipy import sparse

BLOCK = 256
"""Images whose rows are read at once."""
CLOSE = 16
"""Rows this near to each other are read together."""


class StoredRows(Protocol):
    """A matrix on disk, such as `engine.atlas.storage.CSR`."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and concepts."""
        ...

    def rows(self, start: int = 0, stop: int | None = None) -> sparse.csr_matrix:
        """Rows `start` to `stop` in memory."""
        ...


ENTRIES = 4_000_000
"""Entries whose columns are in memory at once."""
_COUNTED = 4096
"""Rows whose entries are counted or put in their columns at once."""

Rows = sparse.csr_matrix | StoredRows
"""[rows, K] codes of tokens or energies of images, not negative, in memory or on disk."""


def read_rows(source: Rows, start: int, stop: int) -> sparse.csr_matrix:
    """Rows `start` to `stop`."""
    return source[start:stop] if sparse.issparse(source) else source.rows(start, stop)


def row_blocks(source: Rows, step: int = BLOCK) -> Iterator[tuple[int, sparse.csr_matrix]]:
    """All rows, `step` at a time, each block with the number of its first row."""
    for start in range(0, source.shape[0], step):
        yield start, read_rows(source, start, min(start + step, source.shape[0]))


def take_rows(source: Rows, rows: np.ndarray) -> sparse.csr_matrix:
    """The given rows in their order, which may repeat."""
    if sparse.issparse(source) or not len(rows):
        return source[rows] if sparse.issparse(source) else source.rows(0, 0)
    wanted, place = np.unique(rows, return_inverse=True)
    runs = np.split(wanted, np.flatnonzero(np.diff(wanted) > CLOSE) + 1)
    parts = [source.rows(int(run[0]), int(run[-1]) + 1)[run - run[0]] for run in runs]
    return sparse.vstack(parts, format="csr")[place]


def column_groups(source: Rows, entries: int = ENTRIES) -> Iterator[tuple[int, sparse.csc_matrix]]:
    """All columns in order, some at a time, each group with the number of its first column.

    A group has at most so many entries, or one column. The rows are read once more for every group.
    """
    count = np.zeros(source.shape[1], np.int64)
    for _, block in row_blocks(source, _COUNTED):
        count += np.bincount(block.indices, minlength=len(count))
    first = 0
    while first < len(count):
        inside = np.searchsorted(np.cumsum(count[first:]), entries, side="right")
        end = first + max(1, int(inside))
        yield first, _columns(source, first, end, count[first:end])
        first = end


def _columns(source: Rows, first: int, end: int, count: np.ndarray) -> sparse.csc_matrix:
    """Columns `first` to `end`, of which the number of entries is known."""
    indptr = np.concatenate([[0], np.cumsum(count)])
    rows, values = np.empty(indptr[-1], np.int32), np.empty(indptr[-1], np.float32)
    filled = indptr[:-1].copy()
    for start, block in row_blocks(source, _COUNTED):
        row = np.repeat(np.arange(start, start + block.shape[0], dtype=np.int32), np.diff(block.indptr))
        here = np.flatnonzero((block.indices >= first) & (block.indices < end))
        here = here[np.argsort(block.indices[here], kind="stable")]
        column = block.indices[here] - first
        added = np.bincount(column, minlength=end - first)
        place = np.arange(len(here)) + (filled - np.cumsum(added) + added)[column]
        rows[place], values[place] = row[here], block.data[here]
        filled += added
    return sparse.csc_matrix((values, rows, indptr), shape=(source.shape[0], end - first))
