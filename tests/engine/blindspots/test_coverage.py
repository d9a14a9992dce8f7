import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.spatial.distance import cdist

from engine.blindspots.metrics import manifold_metrics, squared_radii
from engine.errors import BlindspotError


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(4, 20), st.integers(4, 20), st.integers(1, 3))
def test_all_four_agree_with_their_definitions_image_by_image(seed, images, others, k):
    rng = np.random.default_rng(seed)
    real, model = rng.normal(size=(images, 3)), rng.normal(0.5, 1.5, (others, 3))
    found = manifold_metrics(real, model, k)
    reach = [np.sort(cdist(side, side), axis=1)[:, k] for side in (real, model)]
    apart = cdist(real, model)
    assert found.precision == np.mean([np.any(apart[:, j] <= reach[0]) for j in range(others)])
    assert found.recall == np.mean([np.any(apart[i] <= reach[1]) for i in range(images)])
    assert found.density == pytest.approx((apart <= reach[0][:, None]).sum() / (k * others))
    assert found.coverage == np.mean([apart[i].min() <= reach[0][i] for i in range(images)])


def test_radii_are_those_that_faiss_finds():
    features = np.random.default_rng(0).normal(size=(1500, 16)).astype(np.float32)
    index = faiss.IndexFlatL2(16)
    index.add(features)
    np.testing.assert_allclose(squared_radii(features, 5), index.search(features, 6)[0][:, 5], rtol=1e-4)


def test_sparse_and_dense_features_agree():
    rng = np.random.default_rng(1)
    real, model = (rng.gamma(2, 1, (40, 200)) * (rng.random((40, 200)) < 0.05) for _ in range(2))
    assert manifold_metrics(sparse.csr_matrix(real), sparse.csr_matrix(model)) == manifold_metrics(real, model)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_a_copy_of_the_real_set_is_perfect_with_its_ties_counted(offset):
    """Each ball holds its own image and its k neighbours, the last one on the edge: density (k + 1) / k."""
    real = np.random.default_rng(2).normal(size=(300, 5)) + offset
    found = manifold_metrics(real, real.copy(), 4)
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)
    assert found.density == pytest.approx(5 / 4)


def test_a_model_that_draws_one_thing_is_precise_and_covers_nothing():
    rng = np.random.default_rng(3)
    real = np.concatenate([rng.normal(0, 1, (200, 4)), rng.normal(20, 1, (200, 4))])
    found = manifold_metrics(real, rng.normal(0, 0.3, (200, 4)))
    assert found.precision > 0.95 and found.recall < 0.1 and found.coverage < 0.55


def test_a_far_set_scores_zero():
    rng = np.random.default_rng(4)
    assert manifold_metrics(rng.normal(size=(20, 3)), rng.normal(100, 1, (20, 3))) == (0, 0, 0, 0)


def test_too_few_images_are_refused():
    with pytest.raises(BlindspotError, match="k = 5 need more than 5 images"):
        manifold_metrics(np.zeros((5, 2)), np.zeros((9, 2)))
