import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from engine.blindspots.spectrum import Spectrum, cooccurrence_spectrum, eigenvector_similarity, subspace_overlap
from engine.errors import BlindspotError


def random_codes(seed: int, tokens: int = 300, concepts: int = 60) -> sparse.csr_matrix:
    rng = np.random.default_rng(seed)
    scale = np.exp(rng.normal(0, 1, concepts))
    return sparse.csr_matrix(rng.gamma(2, scale, (tokens, concepts)) * (rng.random((tokens, concepts)) < 0.1))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_lanczos_agrees_with_a_dense_decomposition(seed):
    codes = random_codes(seed)
    found = cooccurrence_spectrum(codes, 8)
    gram = (codes.T @ codes).toarray()
    np.testing.assert_allclose(found.values, np.linalg.eigvalsh(gram)[::-1][:8], rtol=1e-6)
    np.testing.assert_allclose(gram @ found.vectors, found.vectors * found.values, atol=1e-4 * found.values[0])
    np.testing.assert_allclose(found.vectors.T @ found.vectors, np.eye(8), atol=1e-6)
    assert (found.vectors[np.abs(found.vectors).argmax(0), np.arange(8)] > 0).all()


@pytest.mark.parametrize("count", [5, 40])
def test_a_path_graph_has_its_known_eigenvalues(count):
    """Z = edges x nodes incidence of a path: Z^T Z is its signless Laplacian, eigenvalues 4 cos^2(pi j / 2n)."""
    nodes = 60
    edges = sparse.diags([np.ones(nodes - 1), np.ones(nodes - 1)], [0, 1], (nodes - 1, nodes)).tocsr()
    exact = 4 * np.cos(np.pi * np.arange(1, nodes + 1) / (2 * nodes)) ** 2
    np.testing.assert_allclose(cooccurrence_spectrum(edges, count).values, exact[:count], atol=1e-7)


def test_concepts_that_always_fire_together_are_one_direction_of_known_strength():
    codes = np.zeros((10, 50))
    codes[:6, [3, 7, 9]] = 2.0
    codes[6:, 20] = 1.0
    found = cooccurrence_spectrum(sparse.csr_matrix(codes), 3)
    np.testing.assert_allclose(found.values, [6 * 4 * 3, 4, 0], atol=1e-9)
    np.testing.assert_allclose(found.vectors[[3, 7, 9], 0], 1 / np.sqrt(3))


def test_the_same_codes_give_the_same_vectors_to_the_last_bit():
    one, other = (cooccurrence_spectrum(random_codes(5), 8) for _ in range(2))
    np.testing.assert_array_equal(one.vectors, other.vectors)


def test_a_source_is_similar_to_itself_and_a_rotation_shows_in_vectors_but_not_in_the_subspace():
    vectors = np.linalg.qr(np.random.default_rng(0).normal(size=(20, 4)))[0]
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.7), -np.sin(0.7)], [np.sin(0.7), np.cos(0.7)]]
    one, other = Spectrum(np.ones(4), vectors), Spectrum(np.ones(4), vectors @ turn)
    np.testing.assert_allclose(eigenvector_similarity(one, one), np.eye(4), atol=1e-12)
    similarity = eigenvector_similarity(one, other)
    np.testing.assert_allclose(np.diag(similarity), [np.cos(0.7), np.cos(0.7), 1, 1])
    np.testing.assert_allclose(subspace_overlap(similarity), [np.cos(0.7) ** 2, 1, 1, 1])


def test_too_many_eigenvalues_and_other_dictionaries_are_refused():
    with pytest.raises(BlindspotError, match="60 concepts has no 61 eigenvalues"):
        cooccurrence_spectrum(random_codes(0), 61)
    with pytest.raises(BlindspotError, match="over 3 and 4 concepts"):
        eigenvector_similarity(Spectrum(np.ones(1), np.ones((3, 1))), Spectrum(np.ones(1), np.ones((4, 1))))
