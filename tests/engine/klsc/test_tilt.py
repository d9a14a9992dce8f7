import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from engine.errors import BlindspotError
from engine.klsc.law import expectation, kl, log_probabilities
from engine.klsc.tilt import calibrate_tilt, log_partition, tilt, tilted_mean, tilted_variance
from tests.engine.klsc.pools import pools

BETAS = st.floats(-30, 30)


@settings(deadline=None, max_examples=50)
@given(pools(), BETAS)
def test_a_tilt_is_the_definition(pool, beta):
    scores, log_weights = pool
    plain = np.exp(log_weights - log_weights.max() + beta * scores - (beta * scores).max())
    assume(plain.sum() > 1e-200)
    np.testing.assert_allclose(np.exp(tilt(scores, beta, log_weights)), plain / plain.sum(), rtol=1e-9, atol=1e-12)


@settings(deadline=None, max_examples=50)
@given(pools(), BETAS, st.floats(0, 30))
def test_the_mean_increases_with_beta(pool, beta, more):
    scores, log_weights = pool
    less, greater = (tilted_mean(scores, value, log_weights) for value in (beta, beta + more))
    assert greater >= less - 1e-9


@settings(deadline=None, max_examples=50)
@given(pools(), BETAS, BETAS)
def test_tilts_of_tilts_add(pool, first, second):
    scores, log_weights = pool
    twice = tilt(scores, second, tilt(scores, first, log_weights))
    np.testing.assert_allclose(np.exp(twice), np.exp(tilt(scores, first + second, log_weights)), atol=1e-9)


@settings(deadline=None, max_examples=50)
@given(pools(2), st.floats(-3, 3))
def test_mean_and_variance_are_derivatives_of_the_log_partition(pool, beta):
    scores, log_weights = pool
    h = 1e-4
    down, up = (log_partition(scores, beta + step, log_weights) for step in (-h, h))
    spread = np.ptp(scores)
    assert (up - down) / (2 * h) == pytest.approx(tilted_mean(scores, beta, log_weights), abs=1e-6 * (1 + spread) ** 3)
    before, after = (tilted_mean(scores, beta + step, log_weights) for step in (-h, h))
    assert (after - before) / (2 * h) == pytest.approx(
        tilted_variance(scores, beta, log_weights), abs=1e-7 * (1 + spread) ** 4
    )


@settings(deadline=None, max_examples=50)
@given(pools(2), st.floats(-2, 2), st.floats(-2, 2))
def test_kl_between_tilts_is_lemma_d9(pool, beta, other):
    scores, log_weights = pool
    gap = log_partition(scores, beta, log_weights) - log_partition(scores, other, log_weights)
    closed = (beta - other) * tilted_mean(scores, beta, log_weights) - gap
    found = kl(tilt(scores, beta, log_weights), tilt(scores, other, log_weights))
    assert found == pytest.approx(closed, abs=1e-9)
    between = np.linspace(beta, other, 50)
    bounds = [tilted_variance(scores, value, log_weights) for value in between]
    assert found <= max(bounds) * (beta - other) ** 2 / 2 * 1.1 + 1e-9


@settings(deadline=None, max_examples=50)
@given(pools(2), st.floats(0.001, 0.999))
def test_calibration_hits_any_mean_between_the_extremes(pool, share):
    scores, log_weights = pool
    assume(np.ptp(scores) > 0)
    target = scores.min() + share * np.ptp(scores)
    found = calibrate_tilt(scores, target, log_weights)
    assert found.mean == pytest.approx(target, abs=1e-9 * np.ptp(scores) + 1e-12)
    assert tilted_mean(scores, found.value, log_weights) == pytest.approx(found.mean)


@settings(deadline=None, max_examples=50)
@given(pools(3), st.floats(0.01, 0.99))
def test_no_law_with_the_same_mean_is_nearer_to_the_prior(pool, share):
    """Lemma D.4, against a mixture of two neighbouring tilts with the same mean."""
    scores, log_weights = pool
    assume(np.ptp(scores) > 0.1)
    target = scores.min() + share * np.ptp(scores)
    log_p = log_probabilities(len(scores), log_weights)
    best = tilt(scores, calibrate_tilt(scores, target, log_p).value, log_p)
    reach = min(target - scores.min(), scores.max() - target) / 2
    sides = [tilt(scores, calibrate_tilt(scores, target + step, log_p).value, log_p) for step in (-reach, reach)]
    rival = np.logaddexp(*sides) - math.log(2)
    assert expectation(scores, rival) == pytest.approx(target, abs=1e-6)
    assert kl(best, log_p) <= kl(rival, log_p) + 1e-9


def test_the_gaussians_tilt_is_a_shift(gaussian):
    """D.4.4: under q_beta, s ~ N(beta, 1); so beta(m) = m, psi = beta^2 / 2 and KL = beta^2 / 2."""
    for beta in (-1.5, 0.0, 0.7, 3.0):
        log_q = tilt(gaussian.scores, beta, gaussian.log_weights)
        assert expectation(gaussian.scores, log_q) == pytest.approx(beta, abs=1e-9)
        assert tilted_variance(gaussian.scores, beta, gaussian.log_weights) == pytest.approx(1, abs=1e-9)
        assert log_partition(gaussian.scores, beta, gaussian.log_weights) == pytest.approx(beta**2 / 2, abs=1e-9)
        assert calibrate_tilt(gaussian.scores, beta, gaussian.log_weights).value == pytest.approx(beta, abs=1e-8)
        assert kl(log_q, log_probabilities(len(log_q), gaussian.log_weights)) == pytest.approx(beta**2 / 2, abs=1e-9)


def test_steep_tilts_neither_overflow_nor_vanish():
    scores = np.array([-1e6, 0.0, 1e6, 1e6])
    assert np.exp(tilt(scores, 1e9)).tolist() == [0, 0, 0.5, 0.5]
    assert np.exp(tilt(scores, -1e9)).tolist() == [1, 0, 0, 0]
    assert log_partition(scores, 1.0) == pytest.approx(1e6 - math.log(2))
    weightless = np.array([0.0, 0.0, -np.inf, -np.inf])
    assert np.exp(tilt(scores, 1e300, weightless)).tolist() == [0, 1, 0, 0]
    rare = np.array([0.0, -4000.0])
    assert calibrate_tilt(np.array([0.0, 1.0]), 0.5, rare).value == pytest.approx(4000)


@pytest.mark.parametrize("target", [1.0, 3.0, 0.5, 7.0, math.nan, math.inf])
def test_a_mean_at_or_beyond_the_extremes_is_out_of_reach(target):
    with pytest.raises(BlindspotError, match="between 1 and 3, the lowest and the highest score, both excluded"):
        calibrate_tilt(np.array([1.0, 2.0, 3.0, 9.0]), target, np.array([0.0, 0.0, 0.0, -np.inf]))


def test_equal_scores_can_have_no_other_mean():
    same = np.full(3, 2.0)
    assert calibrate_tilt(same, 2.0).value == 0
    with pytest.raises(BlindspotError, match="between 2 and 2"):
        calibrate_tilt(same, 2.1)


def test_beta_must_be_a_number():
    with pytest.raises(BlindspotError, match="finite number, not nan"):
        tilt(np.array([1.0, 2.0]), math.nan)
