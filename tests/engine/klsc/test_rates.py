import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from engine.errors import BlindspotError
from engine.klsc.law import total_variation
from engine.klsc.threshold import boundary_mass, calibrate_threshold, hazard, threshold, threshold_speed
from engine.klsc.tilt import calibrate_tilt, tilt, tilt_speed
from tests.engine.klsc.pools import pools

CONSTANT = 1 / math.sqrt(2 * math.pi)
"""TV speed of the Gaussian's tilt (eq. 123)."""


def mills(cut: float) -> float:
    return math.exp(stats.norm.logpdf(cut) - stats.norm.logsf(cut))


def test_the_gaussians_hazard_is_the_inverse_mills_ratio_and_a_tilt_shifts_it(gaussian):
    """D.6, D.7 and D.4.4."""
    for cut in (-1.0, 0.0, 2.0, 5.0):
        assert hazard(gaussian.scores, cut, 1 / 64, gaussian.log_weights) == pytest.approx(mills(cut), abs=1e-4)
        tilted = tilt(gaussian.scores, 1.5, gaussian.log_weights)
        assert hazard(gaussian.scores, cut, 1 / 64, tilted) == pytest.approx(mills(cut - 1.5), abs=1e-4)


def test_the_gaussians_threshold_speed_is_closed_and_its_tilts_is_constant(gaussian):
    """Equations 114, 115, 123 and Proposition D.13."""
    for cut in (0.0, 1.0, 3.0, 6.0):
        speed = threshold_speed(gaussian.scores, cut, gaussian.log_weights)
        assert speed == pytest.approx(1 / (mills(cut) - cut), rel=1e-4)
        assert speed >= math.sqrt(math.pi / 2) - 1e-4 > CONSTANT
    for beta in (-2.0, 0.0, 1.0, 4.0):
        assert tilt_speed(gaussian.scores, beta, gaussian.log_weights) == pytest.approx(CONSTANT, abs=1e-6)


def test_boundary_mass_is_hazard_times_margin_to_first_order(toy):
    """Lemma D.6."""
    cut = 3.5
    rates = [boundary_mass(toy.scores, cut, margin, toy.log_weights) / margin for margin in (0.05, 0.025)]
    limit = 2 * rates[1] - rates[0]
    assert hazard(toy.scores, cut, 0.02, toy.log_weights) == pytest.approx(limit, rel=5e-3)


@settings(deadline=None, max_examples=50)
@given(pools(2, 60), st.floats(-50, 40), st.floats(0.1, 10), st.floats(0, 3))
def test_a_tilt_never_raises_the_share_that_barely_passes(pool, cut, margin, beta):
    """Lemma D.7 for a margin of any width, where it follows by the same argument."""
    scores, log_weights = pool
    if scores.max() <= cut:
        return
    own = boundary_mass(scores, cut, margin, log_weights)
    assert boundary_mass(scores, cut, margin, tilt(scores, beta, log_weights)) <= own + 1e-9
    if scores.max() > cut + margin / 2:
        tilted = tilt(scores, beta, log_weights)
        assert hazard(scores, cut, margin, tilted) <= hazard(scores, cut, margin, log_weights) + 1e-9


@pytest.mark.parametrize("mean", [5.0, 6.5])
def test_speeds_are_the_limits_of_finite_steps(toy, mean):
    """Lemmas D.11 and D.12."""
    step = 0.005
    cuts = [calibrate_threshold(toy.scores, value, toy.log_weights) for value in (mean - step / 2, mean + step / 2)]
    moved = total_variation(*(threshold(toy.scores, cut.value, toy.log_weights) for cut in cuts))
    middle = calibrate_threshold(toy.scores, mean, toy.log_weights).value
    assert threshold_speed(toy.scores, middle, toy.log_weights) == pytest.approx(
        moved / (cuts[1].mean - cuts[0].mean), rel=2e-3
    )
    betas = [calibrate_tilt(toy.scores, value, toy.log_weights).value for value in (mean - step / 2, mean + step / 2)]
    moved = total_variation(*(tilt(toy.scores, beta, toy.log_weights) for beta in betas))
    middle = calibrate_tilt(toy.scores, mean, toy.log_weights).value
    assert tilt_speed(toy.scores, middle, toy.log_weights) == pytest.approx(moved / step, rel=1e-3)


def test_speeds_need_a_spread():
    scores = np.array([1.0, 2.0, 2.0])
    for ask in (
        lambda: hazard(scores, 2.5, 0.1),
        lambda: threshold_speed(scores, 2.0),
        lambda: tilt_speed(np.full(3, 2.0), 1.0),
    ):
        with pytest.raises(BlindspotError, match=r"choose|Nothing scores above"):
            ask()
