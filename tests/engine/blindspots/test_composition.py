import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from engine.blindspots.composition import aligned, l0_curve, unique_share
from engine.blindspots.cooccurrence import cooccurrence_matrix
from engine.errors import BlindspotError

EPS = np.array([0.0, 0.5, 1, 2, 5, 20])


def random_codes(seed: int, tokens: int = 14, concepts: int = 9) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.float32(rng.integers(1, 9, (tokens, concepts)) / 4 * (rng.random((tokens, concepts)) < 0.3))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_the_matrix_and_its_counts_are_the_dense_products(seed):
    codes = random_codes(seed)
    found = cooccurrence_matrix(sparse.csr_matrix(codes))
    np.testing.assert_array_equal(found.matrix().toarray(), codes.T.astype(float) @ codes)
    fires = (codes > 0).astype(int)
    counts = sparse.csr_matrix((found.counts, found.indices, found.indptr), (9, 9)).toarray()
    np.testing.assert_array_equal(counts, np.triu(fires.T @ fires))
    np.testing.assert_array_equal(found.diagonal(found.sums), np.diag(codes.T.astype(float) @ codes))
    assert all(np.all(np.diff(found.indices[a:b]) > 0) for a, b in zip(found.indptr, found.indptr[1:], strict=False))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.5, 20))
def test_the_curves_count_entries_of_the_dense_matrices(seed, images):
    one, other = random_codes(seed), random_codes(seed + 1)
    found = [cooccurrence_matrix(sparse.csr_matrix(codes)) for codes in (one, other)]
    real, model = (codes.T.astype(float) @ codes for codes in (one, other))
    curve = l0_curve(found[1], EPS, images)
    np.testing.assert_array_equal(curve, [(model > eps * images).sum() for eps in EPS])
    share = unique_share(*found, EPS, real_scale=2.0, model_scale=images)
    for number, eps in enumerate(EPS):
        above = model / images > eps
        if above.any():
            assert share[number] == pytest.approx(np.mean(real[above] / 2 <= eps))
        else:
            assert np.isnan(share[number])


def test_a_source_has_nothing_that_it_lacks_itself():
    found = cooccurrence_matrix(sparse.csr_matrix(random_codes(3)))
    assert unique_share(found, found, EPS[:3]).tolist() == [0, 0, 0]


def test_codes_that_are_not_above_zero_or_not_in_order_do_not_matter():
    plain = sparse.csr_matrix(np.array([[1.0, 2, 0], [0, 0, 3]]))
    messy = sparse.csr_matrix((np.array([2.0, 1, 0, 3]), np.array([1, 0, 0, 2]), np.array([0, 2, 4])), (2, 3))
    for one, other in zip(cooccurrence_matrix(plain), cooccurrence_matrix(messy), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_concept_that_never_fires_has_an_empty_row():
    found = cooccurrence_matrix(sparse.csr_matrix((4, 3)))
    assert found.indptr.tolist() == [0, 0, 0, 0] and l0_curve(found, EPS).tolist() == [0] * 6


def test_float16_codes_give_the_same_sums_in_any_order_of_tokens():
    codes = sparse.random(400, 30, 0.2, "csr", np.float32, 0, data_rvs=np.random.default_rng(0).standard_exponential)
    codes.data = codes.data.astype(np.float16).astype(np.float32)
    shuffled = codes[np.random.default_rng(1).permutation(400)]
    np.testing.assert_array_equal(cooccurrence_matrix(codes).sums, cooccurrence_matrix(shuffled).sums)


def test_different_dictionaries_are_refused():
    one, other = (cooccurrence_matrix(sparse.csr_matrix((4, size))) for size in (3, 5))
    with pytest.raises(BlindspotError, match="3 and 5 concepts cannot be compared"):
        aligned(one, other, other.sums)
