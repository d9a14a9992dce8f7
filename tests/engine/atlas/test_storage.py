import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse

from engine.atlas.schema import CSR_PARTS
from engine.atlas.storage import CSR, RankedTable, read_table
from engine.errors import BlindspotError


def stored(folder, seed: int, rows: int = 9, concepts: int = 5) -> np.ndarray:
    """Write a random CSR of small whole numbers and return it dense."""
    rng = np.random.default_rng(seed)
    dense = rng.integers(1, 9, (rows, concepts)) * (rng.random((rows, concepts)) < 0.4)
    matrix = sparse.csr_matrix(dense)
    arrays = (matrix.indptr.astype(np.int64), matrix.indices.astype(np.uint16), matrix.data.astype(np.float16))
    for part, array in zip(CSR_PARTS, arrays, strict=True):
        np.save(folder / f"{part}.npy", array)
    return dense


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1000), start=st.integers(0, 9), length=st.integers(0, 9), concept=st.integers(0, 4))
def test_rows_and_columns_are_those_of_the_dense_matrix(tmp_path, seed, start, length, concept):
    dense = stored(tmp_path, seed)
    stop = min(start + length, 9)
    matrix = CSR.open(tmp_path, 5)
    assert matrix.shape == (9, 5)
    np.testing.assert_array_equal(matrix.rows(start, stop).toarray(), dense[start:stop])
    np.testing.assert_array_equal(matrix.column(concept, start, stop), dense[start:stop, concept])


def test_only_a_map_of_the_files_is_held(tmp_path):
    stored(tmp_path, 0)
    assert all(isinstance(array, np.memmap) for array in CSR.open(tmp_path, 5)[:3])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "values.npy is missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:100]), "values.npy is damaged"),
        (lambda path: np.save(path, np.zeros(3)), "three arrays do not fit together"),
        (lambda path: np.save(path, np.array([{}]), allow_pickle=True), "is damaged"),
    ],
)
def test_a_damaged_matrix_is_one_sentence(tmp_path, damage, message):
    stored(tmp_path, 0)
    damage(tmp_path / "values.npy")
    with pytest.raises(BlindspotError, match=message):
        CSR.open(tmp_path, 5)


def test_a_truncated_table_is_one_sentence(copy_path):
    path = copy_path / "concepts.parquet"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(BlindspotError, match=r"concepts.parquet is damaged .*verify"):
        read_table(copy_path, "concepts")


def test_ranked_lists_are_found_in_any_row_order():
    rng = np.random.default_rng(0)
    rows = [(kind, k, rank, 10 * k + rank) for kind in ("a", "b") for k in (0, 2) for rank in range(4)]
    order = rng.permutation(len(rows))
    columns = zip(*(rows[i] for i in order), strict=True)
    table = pa.table(dict(zip(["kind", "concept", "rank", "other"], map(list, columns), strict=True)))
    lists = RankedTable(table, "kind", ("b", "a"), ("other",), concepts=3)
    assert lists.find("a", 2, 3)["other"].tolist() == [20, 21, 22]
    assert lists.find("b", 0, 99)["other"].tolist() == [0, 1, 2, 3]
    assert lists.find("a", 1, 3)["other"].tolist() == []
    assert lists.find("a", 2, -1)["other"].tolist() == []
