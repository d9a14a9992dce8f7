import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from engine.blindspots.cooccurrence import cooccurrence_neighbours


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 9))
def test_neighbours_are_the_largest_entries_of_the_dense_cosine_matrix(seed, count):
    rng = np.random.default_rng(seed)
    codes = rng.integers(1, 4, (12, 8)) * (rng.random((12, 8)) < 0.35)
    found = cooccurrence_neighbours(sparse.csr_matrix(codes), count)
    gram = (codes.T @ codes).astype(np.float64)
    scale = np.sqrt(np.diag(gram))
    cosine = np.divide(gram, np.outer(scale, scale), out=np.zeros_like(gram), where=gram > 0).astype(np.float32)
    for concept in range(8):
        others = [other for other in range(8) if other != concept and gram[concept, other] > 0]
        values = sorted((cosine[concept, other] for other in others), reverse=True)[:count]
        listed = found.others[concept][found.others[concept] >= 0]
        assert len(listed) == len(values)
        np.testing.assert_allclose(found.values[concept, : len(values)], values, rtol=1e-6)
        np.testing.assert_allclose(cosine[concept, listed], values, rtol=1e-6)


def test_concepts_that_always_fire_together_have_value_one_whatever_their_scale():
    codes = sparse.csr_matrix(np.array([[1.0, 10.0, 0.0], [2.0, 20.0, 0.0], [0.0, 0.0, 1.0]]))
    found = cooccurrence_neighbours(codes, 2)
    assert found.others[0].tolist() == [1, -1]
    np.testing.assert_allclose(found.values[0], [1, 0])


def test_of_equal_neighbours_the_smaller_concept_comes_first():
    found = cooccurrence_neighbours(sparse.csr_matrix(np.ones((2, 5))), 3)
    assert found.others.tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2], [0, 1, 2]]


def test_a_dead_concept_has_no_neighbours():
    found = cooccurrence_neighbours(sparse.csr_matrix(np.array([[1.0, 0.0]])), 1)
    assert found.others.tolist() == [[-1], [-1]]
