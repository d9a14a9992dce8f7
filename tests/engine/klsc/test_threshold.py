import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from engine.errors import BlindspotError
from engine.klsc.law import kl, log_probabilities, total_variation
from engine.klsc.threshold import boundary_mass, calibrate_threshold, log_survival, mean_above, threshold
from engine.klsc.tilt import calibrate_tilt, tilt
from tests.engine.klsc.pools import pools


@settings(deadline=None, max_examples=50)
@given(pools(2), st.floats(-60, 40), st.floats(0, 20))
def test_tv_between_thresholds_is_lemma_d10_and_kl_lemma_d8(pool, low, more):
    scores, log_weights = pool
    high = low + more
    if scores.max() <= high:
        return
    near, far = (threshold(scores, cut, log_weights) for cut in (low, high))
    lost = log_survival(scores, high, log_weights) - log_survival(scores, low, log_weights)
    assert total_variation(near, far) == pytest.approx(-math.expm1(lost), abs=1e-9)
    between = ((scores > low) & (scores <= high)).any()
    assert kl(near, far) == (math.inf if between else pytest.approx(0, abs=1e-9))
    assert kl(far, near) == pytest.approx(-lost, abs=1e-9)


@settings(deadline=None, max_examples=50)
@given(pools(2), st.floats(-60, 49))
def test_the_tilt_of_equal_mean_is_nearer_to_the_prior(pool, cut):
    """Theorem D.14."""
    scores, log_weights = pool
    log_p = log_probabilities(len(scores), log_weights)
    mean = mean_above(scores, cut, log_p) if scores.max() > cut else scores.max()
    if not scores.min() + 1e-6 < mean < scores.max() - 1e-6:
        return
    soft = tilt(scores, calibrate_tilt(scores, mean, log_p).value, log_p)
    assert kl(soft, log_p) <= kl(threshold(scores, cut, log_p), log_p) + 1e-8


@settings(deadline=None, max_examples=50)
@given(pools(), st.floats(0, 1))
def test_calibration_takes_the_nearest_of_all_means_that_a_threshold_can_give(pool, share):
    scores, log_weights = pool
    cuts = [scores.min() - 1, *sorted(set(scores))[:-1]]
    means = np.array([mean_above(scores, cut, log_weights) for cut in cuts])
    target = means[0] + share * (means[-1] - means[0])
    found = calibrate_threshold(scores, target, log_weights)
    assert abs(found.mean - target) <= np.abs(means - target).min() + 1e-9
    assert mean_above(scores, found.value, log_weights) == pytest.approx(found.mean, abs=1e-9)


def test_a_threshold_by_hand():
    scores = np.array([4.0, 1.0, 3.0, 1.0, 2.0])
    assert np.exp(threshold(scores, 2.0)) == pytest.approx([0.5, 0, 0.5, 0, 0])
    assert calibrate_threshold(scores, 3.4) == pytest.approx((2.5, 3.5))
    assert calibrate_threshold(scores, 3.1) == pytest.approx((1.5, 3.0))
    assert calibrate_threshold(scores, 4.0) == pytest.approx((3.5, 4.0))
    everything = calibrate_threshold(scores, 2.2)
    assert everything.value < 1 and everything.mean == pytest.approx(2.2)
    assert boundary_mass(scores, 1.0, 1.5) == pytest.approx(1 / 3)
    assert boundary_mass(scores, 1.0, 1.0) == 0


def test_the_gaussians_threshold_is_the_inverse_mills_ratio(gaussian):
    """D.4.4: E[s | s > m] = phi(m) / Phi(-m), and -log Phi(-m) is the KL to the prior."""
    log_p = log_probabilities(len(gaussian.scores), gaussian.log_weights)
    for cut in (-2.0, 0.0, 1.5, 6.0):
        mills = math.exp(stats.norm.logpdf(cut) - stats.norm.logsf(cut))
        assert mean_above(gaussian.scores, cut, log_p) == pytest.approx(mills, abs=1e-5)
        assert calibrate_threshold(gaussian.scores, mills, log_p).value == pytest.approx(cut, abs=1e-3)
        assert kl(threshold(gaussian.scores, cut, log_p), log_p) == pytest.approx(-stats.norm.logsf(cut), abs=1e-5)
        exact = -math.expm1(stats.norm.logsf(cut + 0.125) - stats.norm.logsf(cut))
        assert boundary_mass(gaussian.scores, cut, 0.125, log_p) == pytest.approx(exact, abs=1e-5)
        shifted = -math.expm1(stats.norm.logsf(cut + 0.125, 2) - stats.norm.logsf(cut, 2))
        tilted = tilt(gaussian.scores, 2.0, log_p)
        assert boundary_mass(gaussian.scores, cut, 0.125, tilted) == pytest.approx(shifted, abs=1e-5)


def test_a_tail_whose_probability_underflows_has_a_threshold():
    scores, log_weights = np.array([0.0, 1.0, 2.0]), np.array([0.0, -5000.0, -5000.0])
    assert calibrate_threshold(scores, 1.5, log_weights) == pytest.approx((0.5, 1.5))


def test_out_of_reach_is_said_with_the_range():
    scores = np.array([1.0, 2.0, 3.0, 4.0])
    for target in (2.4, 4.1, math.nan):
        with pytest.raises(BlindspotError, match=r"from 2.5, that of all scores, to 4, the highest score"):
            calibrate_threshold(scores, target)
    with pytest.raises(BlindspotError, match="Nothing scores above 4: choose a threshold below 4"):
        threshold(scores, 4.0)
    assert log_survival(scores, 4.0) == -math.inf
