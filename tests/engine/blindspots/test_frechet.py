import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg, sparse

from engine.blindspots.metrics import frechet_distance
from engine.errors import BlindspotError


def textbook(real: np.ndarray, model: np.ndarray) -> float:
    """FID by the covariances and a matrix square root."""
    left, right = np.atleast_2d(np.cov(real, rowvar=False)), np.atleast_2d(np.cov(model, rowvar=False))
    root = linalg.sqrtm(left)
    cross = np.trace(linalg.sqrtm(root @ right @ root)).real
    return np.sum((real.mean(0) - model.mean(0)) ** 2) + np.trace(left) + np.trace(right) - 2 * cross


def features(seed: int, images: int, dim: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.gamma(1.5, 1, (images, dim)) @ rng.normal(size=(dim, dim)) + rng.normal(size=dim)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(8, 40), st.integers(8, 40), st.integers(1, 6))
def test_it_agrees_with_the_textbook_formula(seed, images, others, dim):
    real, model = features(seed, images, dim), features(seed + 1, others, dim)
    assert frechet_distance(real, model).distance == pytest.approx(textbook(real, model), rel=1e-6, abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 9), st.integers(2, 9), st.integers(10, 60))
def test_with_more_features_than_images_it_is_the_same_in_fewer_dimensions(seed, images, others, dim):
    """All features lie in a space of at most n + m dimensions; turned into it, the textbook formula is cheap."""
    rng = np.random.default_rng(seed)
    real, model = (rng.gamma(2, 1, (n, dim)) * (rng.random((n, dim)) < 0.3) for n in (images, others))
    _, _, basis = np.linalg.svd(np.concatenate([real, model]), full_matrices=False)
    sparse_pair = sparse.csr_matrix(real), sparse.csr_matrix(model)
    expected = frechet_distance(real @ basis.T, model @ basis.T)
    for found in (frechet_distance(real, model), frechet_distance(*sparse_pair)):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_equal_sets_have_distance_zero():
    same = features(0, 50, 5)
    assert frechet_distance(same, same).distance == pytest.approx(0, abs=1e-9)
    codes = sparse.random(30, 500, 0.05, "csr", rng=np.random.default_rng(0))
    assert frechet_distance(codes, codes).distance == pytest.approx(0, abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.floats(-50, 50), st.floats(0.1, 5))
def test_shifted_and_scaled_gaussians_are_exact(seed, shift, scale):
    """N(mu, S) against N(scale mu + shift, scale^2 S): tr (S scale^2 S)^(1/2) = scale tr S."""
    real = np.random.default_rng(seed).normal(size=(60, 4)) @ np.diag([1, 2, 3, 4])
    model = scale * (real - real.mean(0)) + real.mean(0) + shift
    found = frechet_distance(real, model)
    trace = real.var(0, ddof=1).sum()
    assert found.mean == pytest.approx(4 * shift**2, abs=1e-9)
    assert found.covariance == pytest.approx((1 - scale) ** 2 * trace, abs=1e-7)
    assert found.distance == pytest.approx(found.mean + found.covariance)


def test_theorem_6_a_column_orthonormal_dictionary_keeps_fid():
    dictionary = np.linalg.qr(np.random.default_rng(0).normal(size=(40, 6)))[0]
    real, model = features(1, 30, 6), features(2, 30, 6)
    lifted = frechet_distance(real @ dictionary.T, model @ dictionary.T)
    np.testing.assert_allclose(lifted, frechet_distance(real, model), rtol=1e-8)


def test_sets_in_different_spaces_or_of_one_image_are_refused():
    with pytest.raises(BlindspotError, match="in one feature space"):
        frechet_distance(np.zeros((5, 3)), np.zeros((5, 4)))
    with pytest.raises(BlindspotError, match="two or more images"):
        frechet_distance(np.zeros((1, 3)), np.zeros((5, 3)))
