import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import BlindspotError
from engine.klsc.law import effective_sample_size
from engine.klsc.threshold import matching_top_k
from engine.klsc.tilt import tilt
from tests.engine.klsc.pools import pools


@settings(deadline=None, max_examples=50)
@given(pools())
def test_the_effective_sample_size_lies_between_one_and_n(pool):
    _, log_weights = pool
    size = effective_sample_size(log_weights)
    plain = np.exp(log_weights - log_weights.max())
    assert 1 <= size <= len(log_weights)
    assert size == pytest.approx(plain.sum() ** 2 / np.square(plain).sum())


def test_it_is_n_for_equal_weights_and_k_for_k_equal_ones_among_nothing():
    assert effective_sample_size(np.full(7, -3000.0)) == pytest.approx(7)
    assert effective_sample_size(np.array([0.0, 0.0, -np.inf, -np.inf])) == pytest.approx(2)


def test_the_gaussians_effective_share_is_closed():
    """With s ~ N(0, 1) and tilt beta, ESS / n tends to Z(beta)^2 / Z(2 beta) = exp(-beta^2)."""
    scores = np.random.default_rng(0).standard_normal(400_000)
    assert effective_sample_size(tilt(scores, 0.8)) / len(scores) == pytest.approx(np.exp(-0.64), rel=0.01)


def test_a_steep_tilt_shows_only_the_best_images():
    """Lemma F.1."""
    scores = np.array([3.0, 1.0, 3.0, 2.9])
    assert np.exp(tilt(scores, 0.0)) == pytest.approx([0.25] * 4)
    assert np.exp(tilt(scores, 1.0)) == pytest.approx(np.exp(scores) / np.exp(scores).sum())
    assert np.exp(tilt(scores, 1e6)) == pytest.approx([0.5, 0, 0.5, 0])


@settings(deadline=None, max_examples=50)
@given(pools(), st.floats(0, 1))
def test_no_other_k_has_a_mean_nearer_to_the_target(pool, share):
    scores, _ = pool
    ordered = sorted(scores, reverse=True)
    means = np.array([np.mean(ordered[:k]) for k in range(1, len(scores) + 1)])
    target = means[-1] + share * (means[0] - means[-1])
    found = matching_top_k(scores, target)
    assert found.mean == pytest.approx(means[found.k - 1], abs=1e-9)
    assert abs(found.mean - target) <= np.abs(means - target).min() + 1e-9


def test_out_of_reach_is_said_with_the_pools_range():
    for target in (1.9, 3.1):
        with pytest.raises(BlindspotError, match=r"pool of 3 images: its best have means from 2 \(all\) to 3 \(the"):
            matching_top_k(np.array([1.0, 2.0, 3.0]), target)
    assert matching_top_k(np.array([1.0, 3.0, 3.0]), 3.0) == (2, 3.0)
