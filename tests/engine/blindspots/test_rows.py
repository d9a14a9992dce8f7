"""What is read some rows or columns at a time is the matrix as it would be in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from engine.atlas.storage import CSR, CSRFolder
from engine.blindspots import rows
from engine.blindspots.rows import column_groups


@pytest.mark.parametrize("entries", [1, 40, 10**6])
def test_groups_of_columns_are_the_columns(entries: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rows, "_COUNTED", 7)
    matrix = sparse.random(30, 12, 0.3, "csr", np.float32, random_state=0)
    matrix[:, 5] = 0
    matrix.eliminate_zeros()
    matrix.sort_indices()
    CSR(matrix.indptr.astype(np.int64), matrix.indices.astype(np.uint16), matrix.data, 12).save(tmp_path, np.float32)
    for source in (matrix, CSRFolder(tmp_path, 12)):
        groups = list(column_groups(source, entries))
        assert [first for first, _ in groups] == np.cumsum([0, *(g.shape[1] for _, g in groups)])[:-1].tolist()
        assert all(group.nnz <= entries or group.shape[1] == 1 for _, group in groups)
        found = sparse.hstack([group for _, group in groups], format="csc")
        assert (found != matrix.tocsc()).nnz == 0 and found.has_sorted_indices and found.shape == (30, 12)
