import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from engine.errors import BlindspotError
from engine.klsc.injection import calibrate_injection, distortion_bound, inject
from engine.klsc.law import expectation, kl, log_probabilities
from engine.klsc.tilt import calibrate_tilt, tilt
from tests.engine.klsc.pools import pools, scores


def plane(correlation: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(s, f, log-weights) of two standard normal scores with a correlation, on a grid."""
    s, f = (axis.ravel() for axis in np.meshgrid(np.arange(-7, 9, 0.1), np.arange(-7, 9, 0.1)))
    return s, f, -(s**2 - 2 * correlation * s * f + f**2) / (2 * (1 - correlation**2))


def test_gaussian_scores_have_closed_forms():
    """Under q_beta f ~ N(c beta, 1): the bound is (r - c m)^2 / 2; with s held, f has variance 1 - c^2."""
    correlation, target, level = 0.5, 0.8, 1.3
    s, f, log_weights = plane(correlation)
    intrinsic = tilt(s, target, log_weights)
    excess = level - correlation * target
    bound = distortion_bound(f, level, intrinsic)
    assert bound == pytest.approx((excess**2 / 2, excess), abs=1e-6)
    found = calibrate_injection(s, f, target, level, log_weights)
    eta = excess / (1 - correlation**2)
    assert found.eta == pytest.approx(eta, abs=1e-6)
    assert found.beta == pytest.approx(target - correlation * eta, abs=1e-6)
    assert found.distortion == pytest.approx(excess**2 / (2 * (1 - correlation**2)), abs=1e-6)
    law = inject(s, f, found.beta, found.eta, log_weights)
    assert expectation(s, law) == pytest.approx(target, abs=1e-8)
    assert expectation(f, law) == pytest.approx(level, abs=1e-8)


@settings(deadline=None, max_examples=50)
@given(pools(2, 20), st.floats(0.02, 0.98))
def test_the_bound_is_the_supremum_of_theorem_e3(pool, share):
    task, log_weights = pool
    assume(np.ptp(task) > 0.1)
    log_q = log_probabilities(len(task), log_weights)
    level = task.min() + share * np.ptp(task)

    def dual(eta: float) -> float:
        return eta * level - logsumexp(log_q + eta * task)

    bound = distortion_bound(task, level, log_q)
    assert bound.distortion == pytest.approx(max(dual(bound.eta), 0), abs=1e-7)
    best = minimize_scalar(lambda eta: -dual(eta), bounds=(0, 2 * bound.eta + 1), method="bounded")
    assert bound.distortion >= -best.fun - 1e-7


@settings(deadline=None, max_examples=50)
@given(st.integers(3, 12).flatmap(lambda n: st.tuples(scores(n), scores(n))), st.floats(-4, 4), st.floats(0.1, 4))
def test_calibration_finds_the_law_whose_means_are_asked_for_and_its_cost_is_never_below_the_bound(pair, tilted, lured):
    s, f = pair
    assume(np.ptp(s) > 1 and np.ptp(f) > 1)
    law = inject(s, f, tilted / np.ptp(s), lured / np.ptp(f))
    target, level = expectation(s, law), expectation(f, law)
    intrinsic = tilt(s, calibrate_tilt(s, target).value)
    found = calibrate_injection(s, f, target, level)
    np.testing.assert_allclose(np.exp(inject(s, f, found.beta, found.eta)), np.exp(law), atol=1e-4)
    assert found.distortion == pytest.approx(kl(law, intrinsic), abs=1e-6)
    assert found.distortion >= distortion_bound(f, level, intrinsic).distortion - 1e-7


def test_a_task_that_asks_for_nothing_costs_nothing():
    s, f = np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.0, 0.0])
    intrinsic = tilt(s, calibrate_tilt(s, 1.2).value)
    assert distortion_bound(f, 0.1, intrinsic) == (0, 0)
    found = calibrate_injection(s, f, 1.2, 0.1)
    assert found.eta == found.distortion == 0 and found.beta == pytest.approx(calibrate_tilt(s, 1.2).value)


def test_what_no_law_can_do_is_refused():
    s, f = np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.0, 0.0])
    with pytest.raises(BlindspotError, match=r"A mean score of 1\.5 is out of reach"):
        distortion_bound(f, 1.5, tilt(s, 0.5))
    with pytest.raises(BlindspotError, match=r"task score of 0.9 .* where the mean score is 1.5: .* about 0.5\b"):
        calibrate_injection(s, f, 1.5, 0.9)
    with pytest.raises(BlindspotError, match="between 0 and 2"):
        calibrate_injection(s, f, 2.5, 0.5)
    with pytest.raises(BlindspotError, match="task score of 2 is out of reach"):
        calibrate_injection(s, np.full(3, 1.0), 1.5, 2.0)
