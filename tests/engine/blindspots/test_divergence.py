import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from engine.blindspots.divergence import failures, leading_concepts, pair_divergence
from engine.errors import BlindspotError


def energies(seed: int, images: int, concepts: int = 9) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.float32(rng.gamma(2, 1, (images, concepts)) * (rng.random((images, concepts)) < 0.4))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 12))
def test_divergence_agrees_with_the_dense_definition(seed, real_images, pairs):
    real, model = energies(seed, real_images), energies(seed + 1, 12)
    rng = np.random.default_rng(seed)
    left, right = rng.integers(0, real_images, pairs), rng.integers(0, 12, pairs)
    live = rng.random(9) < 0.7
    found = pair_divergence(sparse.csr_matrix(real), sparse.csr_matrix(model), left, right, live=live)
    difference = (model[right].astype(float) - real[left])[:, live]
    np.testing.assert_allclose(found.l2, np.linalg.norm(difference, axis=1), atol=1e-12)
    if live.any():
        np.testing.assert_allclose(found.mean_delta, (1 / (1 + np.exp(-difference / 0.8))).mean(1), atol=1e-12)


def test_an_image_does_not_diverge_from_itself():
    same = sparse.csr_matrix(energies(0, 5))
    found = pair_divergence(same, same, np.arange(5), np.arange(5))
    assert found.l2.tolist() == [0] * 5 and found.mean_delta.tolist() == [0.5] * 5


def test_swapping_the_sources_keeps_l2_and_mirrors_mean_delta():
    real, model, rows = sparse.csr_matrix(energies(1, 6)), sparse.csr_matrix(energies(2, 6)), np.arange(6)
    one, other = pair_divergence(real, model, rows, rows), pair_divergence(model, real, rows, rows)
    np.testing.assert_allclose(one.l2, other.l2)
    np.testing.assert_allclose(one.mean_delta, 1 - other.mean_delta)


def test_more_pairs_than_fit_at_once_are_measured_all():
    real = sparse.csr_matrix(np.arange(5000, dtype=np.float32)[:, None])
    found = pair_divergence(real, real * 2, np.arange(5000), np.arange(5000))
    np.testing.assert_array_equal(found.l2, np.arange(5000))


def test_failures_are_the_largest_in_order():
    assert failures(np.array([1.0, 9, 3, 9]), 3).tolist() == [1, 3, 2]


def test_leading_concepts_are_listed_three_ways():
    real, model = np.array([[0, 5.0, 1, 0, 2]]), np.array([[4.0, 5, 0, 0, 3]])
    found = leading_concepts(sparse.csr_matrix(real), sparse.csr_matrix(model), 2)
    assert found.real.concepts.tolist() == [1, 4] and found.real.model.tolist() == [5, 3]
    assert found.model.concepts.tolist() == [1, 0] and found.model.real.tolist() == [5, 0]
    assert found.changed.concepts.tolist() == [0, 2]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_the_changed_concepts_make_up_the_l2(seed):
    real, model = (sparse.csr_matrix(energies(seed + step, 1)) for step in (0, 1))
    changed = leading_concepts(real, model, 9).changed
    l2 = pair_divergence(real, model, np.zeros(1, int), np.zeros(1, int)).l2[0]
    assert np.linalg.norm(changed.model.astype(float) - changed.real) == pytest.approx(l2)


def test_sources_of_different_dictionaries_are_refused():
    with pytest.raises(BlindspotError, match="one dictionary"):
        pair_divergence(sparse.csr_matrix((2, 3)), sparse.csr_matrix((2, 4)), np.zeros(1, int), np.zeros(1, int))
