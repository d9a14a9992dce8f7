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
